"""Classify a Parquet file or folder with Ray Data.

Run: python examples/ray_predict.py MODEL INPUT OUTPUT
"""

import sys

import ray

from minibert import BatchPredictor

model, source, output = sys.argv[1:]
rows = ray.data.read_parquet(source)
predictions = rows.map_batches(
    BatchPredictor,
    fn_constructor_args=[model],
    batch_format="pyarrow",
    batch_size=2048,
    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=8),  # each actor loads the model once
)
predictions.write_parquet(output)
