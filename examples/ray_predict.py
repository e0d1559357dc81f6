"""Classify a Parquet file or folder with Ray Data.

Run: python examples/ray_predict.py MODEL INPUT OUTPUT
"""

import sys

import ray

from minibert import BatchPredictor

model, source, output = sys.argv[1:]
rows = ray.data.read_parquet(source)
predictions = rows.map_batches(
    BatchPredictor,  # a class: each actor loads the model once
    fn_constructor_args=[model],
    batch_format="pyarrow",
    batch_size=2048,
)
predictions.write_parquet(output)
