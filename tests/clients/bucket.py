"""Makes a bucket: bucket.py ENDPOINT KEY SECRET BUCKET; waits until the server answers."""

import sys
import time

import boto3
from botocore.config import Config

endpoint, key, secret, bucket = sys.argv[1:]
config = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})
s3 = boto3.client(
    "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1", config=config
)
for attempt in range(100):
    try:
        if bucket not in [found["Name"] for found in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=bucket)
        sys.exit(0)
    except Exception as error:
        last = error
        time.sleep(0.2)
sys.exit(f"{endpoint} does not answer: {last}")
