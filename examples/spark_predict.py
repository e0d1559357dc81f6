"""Classify a Parquet file or folder with Spark.

Run: spark-submit examples/spark_predict.py MODEL INPUT OUTPUT
"""

import sys

from pyspark.sql import SparkSession
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

from minibert import BatchPredictor

model, source, output = sys.argv[1:]
rows = SparkSession.builder.getOrCreate().read.parquet(source)
predictor = BatchPredictor(model)  # each partition loads the model once
schema = from_arrow_schema(predictor.output_schema(to_arrow_schema(rows.schema)))
predictions = rows.mapInArrow(lambda batches: map(predictor, batches), schema)
predictions.write.parquet(output)
