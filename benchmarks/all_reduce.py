"""What adding up gradients over processes takes: GradientSum beside DistributedDataParallel.

torchrun --nproc-per-node 2 -m benchmarks.all_reduce
"""

import statistics
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import minibert
from minibert.processes import process_group
from minibert.training.gradients import GradientSum
from minibert.training.optimizer import make_optimizer
from minibert.training.options import TrainingOptions

STEPS = 20  # of each way, in turn, after one that is not counted
WORDS = 2000  # rows of the word table, which training makes as small as its texts allow


def main() -> None:
    """Print the median time of a forward and backward pass with each way to add up, and none."""
    with process_group() as processes:
        classifier = minibert.TextClassifier.pretrained("all-MiniLM-L6-v2", ["bad", "good"])
        model = classifier.model.train()
        embeddings = model.encoder.embeddings
        embeddings.word = nn.Embedding(WORDS, embeddings.word.weight.shape[1])
        optimizer = make_optimizer(model, TrainingOptions())
        add_up = GradientSum(optimizer, processes)
        parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
        ids, labels = torch.randint(WORDS, (32, 13)), torch.randint(2, (32,))
        seconds: dict[str, list[float]] = {"DDP": [], "GradientSum": [], "no sum": []}
        for _ in range(STEPS + 1):
            for way, measured in seconds.items():
                optimizer.zero_grad()
                dist.barrier()
                started = time.perf_counter()
                loss = F.cross_entropy((parallel if way == "DDP" else model)(ids), labels)
                loss.backward()
                if way == "GradientSum":
                    add_up(loss.detach())
                dist.barrier()
                measured.append(time.perf_counter() - started)
        if processes.is_first:
            print(f"{processes.size} processes, {add_up.flat.nbytes / 1e6:.0f} MB of gradients")
            for way, measured in seconds.items():
                print(f"{way}: {1000 * statistics.median(measured[1:]):.0f} ms")


if __name__ == "__main__":
    main()
