"""A moto server with one bucket and one user, who has a key: run by the tests in an environment of its own.

Prints one line of JSON, `{"endpoint": ..., "key": ..., "secret": ...}`, once it asks every request for a signature;
ends when its standard input does.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::results", "arn:aws:s3:::results/*"]}
    ],
}


def main() -> None:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    how: dict[str, Any] = {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "a",
        "aws_secret_access_key": "b",
    }
    boto3.client("s3", **how).create_bucket(Bucket="results")
    iam = boto3.client("iam", **how)
    iam.create_user(UserName="user")
    iam.put_user_policy(UserName="user", PolicyName="results", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="user")["AccessKey"]
    asked = urllib.request.Request(
        f"{endpoint}/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(asked).close()
    told = {"endpoint": f"{host}:{port}", "key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
