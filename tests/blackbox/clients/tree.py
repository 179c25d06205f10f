"""Copies a tree of files to a bucket and back with boto3, certificates verified.

tree.py mb BUCKET | in BUCKET PREFIX DIR | ls BUCKET PREFIX | out BUCKET PREFIX DIR

Keys, endpoint and CA come from the environment. `ls` prints {path below the prefix: size} as JSON. Everything
else prints nothing and fails on the first error.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3

FILES_AT_ONCE = 8


def client():
    return boto3.client(
        "s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], verify=os.environ["AWS_CA_BUNDLE"]
    )


def listing(s3, bucket, prefix):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    for page in pages:
        for item in page.get("Contents", []):
            yield item["Key"], item["Size"]


def in_parallel(work, items):
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for _ in pool.map(work, items):
            pass


def copy_in(s3, bucket, prefix, root):
    files = [path for path in Path(root).rglob("*") if path.is_file() and not path.is_symlink()]

    def upload(path):
        s3.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(root).as_posix()}")

    in_parallel(upload, files)


def copy_out(s3, bucket, prefix, root):
    def download(item):
        key, _ = item
        target = Path(root) / key.removeprefix(f"{prefix}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(target))

    in_parallel(download, list(listing(s3, bucket, prefix)))


def main(command, bucket, *rest):
    s3 = client()
    if command == "mb":
        s3.create_bucket(Bucket=bucket)
    elif command == "in":
        copy_in(s3, bucket, *rest)
    elif command == "out":
        copy_out(s3, bucket, *rest)
    elif command == "ls":
        (prefix,) = rest
        print(json.dumps({key.removeprefix(f"{prefix}/"): size for key, size in listing(s3, bucket, prefix)}))
    else:
        sys.exit(f"unknown command {command!r}")


if __name__ == "__main__":
    main(*sys.argv[1:])
