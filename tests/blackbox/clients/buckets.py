"""What boto3, and a browser without keys, see of what buckets do by themselves: websites, access logs, inventories,
events, who pays.

buckets.py [NAME ...] runs the checks of these names, or all, each in buckets of its own, and prints their names.
Keys, endpoint and CA come from the environment, and the domain of the cluster in HOLDFAST_S3_DOMAIN. Fails on the
first thing that is not as Amazon documents it.
"""

import csv
import gzip
import hashlib
import http.client
import http.server
import json
import os
import socket
import ssl
import sys
import threading
import time
import urllib.parse

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from objects import bucket, client, equal, put, read, refused

# Longest that something which happens by itself may take, on a loaded machine.
PATIENCE_SECONDS = 120

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def public(s3, name, actions=("s3:GetObject",)):
    """Lets everybody read."""
    s3.delete_public_access_block(Bucket=name)
    resources = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    allow = [
        {"Effect": "Allow", "Principal": "*", "Action": action, "Resource": resources[action != "s3:ListBucket"]}
        for action in actions
    ]
    s3.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": allow}))


def eventually(what, look):
    """What `look` returns, as soon as it is true."""
    begun = time.monotonic()
    while time.monotonic() - begun < PATIENCE_SECONDS:
        if found := look():
            return found
        time.sleep(0.3)
    raise AssertionError(f"no {what} within {PATIENCE_SECONDS} s")


class Browser(http.client.HTTPSConnection):
    """Speaks to the endpoint as to a host of another name, whose certificate it verifies."""

    def __init__(self, host):
        self.endpoint = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL"])
        self.trust = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
        super().__init__(host, context=self.trust)

    def connect(self):
        plain = socket.create_connection((self.endpoint.hostname, self.endpoint.port))
        self.sock = self.trust.wrap_socket(plain, server_hostname=self.host)


def browse(name, path, method="GET", **headers):
    """Status, headers and text of a page of a bucket's website."""
    browser = Browser(f"{name}.website.{os.environ['HOLDFAST_S3_DOMAIN']}")
    browser.request(method, path, headers=headers)
    answer = browser.getresponse()
    text = answer.read().decode()
    browser.close()
    return answer.status, answer.headers, text


@check
def static_websites(s3):
    name = bucket(s3, "website")
    host = f"https://{name}.website.{os.environ['HOLDFAST_S3_DOMAIN']}"
    refused(404, "NoSuchWebsiteConfiguration", s3.get_bucket_website, Bucket=name)
    equal(browse(name, "/")[0], 404)
    for key, text in {"index.html": "home", "docs/index.html": "docs", "error.html": "sorry"}.items():
        put(s3, name, key, text.encode(), ContentType="text/html")
    put(s3, name, "moved", b"", WebsiteRedirectLocation="/docs/")
    site = {
        "IndexDocument": {"Suffix": "index.html"},
        "ErrorDocument": {"Key": "error.html"},
        "RoutingRules": [
            {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "docs/"}},
            {
                "Condition": {"HttpErrorCodeReturnedEquals": "404", "KeyPrefixEquals": "shop/"},
                "Redirect": {"HostName": "shop.example.com", "Protocol": "http", "HttpRedirectCode": "302"},
            },
        ],
    }
    s3.put_bucket_website(Bucket=name, WebsiteConfiguration=site)
    found = s3.get_bucket_website(Bucket=name)
    equal({part: found[part] for part in site}, site)

    status, headers, text = browse(name, "/")
    equal((status, headers["x-amz-error-code"]), (403, "AccessDenied"))
    assert "<li>Code: AccessDenied</li>" in text, text
    public(s3, name, ("s3:GetObject", "s3:ListBucket"))
    for path, expected in {"/": "home", "/docs/": "docs", "/index.html": "home"}.items():
        status, headers, text = browse(name, path)
        equal((status, headers["content-type"], text), (200, "text/html", expected))
    equal(browse(name, "/docs/", Range="bytes=1-2")[::2], (206, "oc"))
    for path, status, location in [
        ("/docs", 302, f"{host}/docs/"),
        ("/old/a%20b", 301, f"{host}/docs/a%20b"),
        ("/shop/shoe", 302, "http://shop.example.com/shop/shoe"),
        ("/moved", 301, "/docs/"),
    ]:
        answer = browse(name, path)
        equal((answer[0], answer[1]["location"]), (status, location))
    equal(browse(name, "/gone")[::2], (404, "sorry"))
    equal(browse(name, "/gone", method="HEAD")[::2], (404, ""))
    equal(browse(name, "/", method="PUT")[0], 405)

    everything = {"RedirectAllRequestsTo": {"HostName": "example.com"}}
    s3.put_bucket_website(Bucket=name, WebsiteConfiguration=everything)
    equal(browse(name, "/x")[1]["location"], "https://example.com/x")
    refused(
        400, "InvalidRequest", s3.put_bucket_website,
        Bucket=name, WebsiteConfiguration=dict(site, **everything),
    )
    refused(
        400, "InvalidArgument", s3.put_bucket_website,
        Bucket=name, WebsiteConfiguration={"IndexDocument": {"Suffix": "a/b"}},
    )
    s3.delete_bucket_website(Bucket=name)
    equal(browse(name, "/")[1]["x-amz-error-code"], "NoSuchWebsiteConfiguration")


@check
def access_logs(s3):
    name, target = bucket(s3, "logged"), bucket(s3, "logs")
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=name)
    wanted = {"TargetBucket": target, "TargetPrefix": "log/"}
    s3.put_bucket_logging(Bucket=name, BucketLoggingStatus={"LoggingEnabled": wanted})
    equal(s3.get_bucket_logging(Bucket=name)["LoggingEnabled"], wanted)
    refused(
        400, "InvalidTargetBucketForLogging", s3.put_bucket_logging,
        Bucket=name, BucketLoggingStatus={"LoggingEnabled": dict(wanted, TargetBucket="nobody-has-this")},
    )
    stored = put(s3, name, "a key", b"content")
    refused(404, "NoSuchKey", s3.get_object, Bucket=name, Key="gone")
    requests = {
        stored["ResponseMetadata"]["RequestId"]: "REST.PUT.OBJECT a%20key",
        s3.get_object(Bucket=name, Key="a key")["ResponseMetadata"]["RequestId"]: "REST.GET.OBJECT a%20key",
        s3.list_objects_v2(Bucket=name)["ResponseMetadata"]["RequestId"]: "REST.GET.BUCKET -",
    }

    def lines():
        keys = [found["Key"] for found in s3.list_objects_v2(Bucket=target).get("Contents", [])]
        assert all(key.startswith("log/") for key in keys), keys
        text = "".join(read(s3, target, key).decode() for key in keys)
        return text if all(request in text for request in requests) and "404 NoSuchKey" in text else None

    for line in eventually("access log", lines).splitlines():
        owner, logged, _, _, _, requester, request = line.split(" ")[:7]
        equal((logged, requester), (name, owner))
        if request in requests:
            assert f" {request} {requests[request]} " in line and " 200 - " in line, line
            assert "SigV4 TLS_" in line and "Boto3" in line, line
    s3.put_bucket_logging(Bucket=name, BucketLoggingStatus={})
    assert "LoggingEnabled" not in s3.get_bucket_logging(Bucket=name)


@check
def inventories(s3):
    name, target = bucket(s3, "counted"), bucket(s3, "inventories")
    content = {f"in/ä {number}": b"x" * number for number in range(1100)}
    for key, body in content.items():
        put(s3, name, key, body)
    put(s3, name, "out", b"not counted")
    wanted = {
        "Id": "sizes",
        "IsEnabled": True,
        "IncludedObjectVersions": "Current",
        "Schedule": {"Frequency": "Daily"},
        "Filter": {"Prefix": "in/"},
        "OptionalFields": ["Size", "ETag"],
        "Destination": {"S3BucketDestination": {"Bucket": f"arn:aws:s3:::{target}", "Format": "CSV", "Prefix": "p"}},
    }
    s3.put_bucket_inventory_configuration(Bucket=name, Id="sizes", InventoryConfiguration=wanted)
    shown = s3.get_bucket_inventory_configuration(Bucket=name, Id="sizes")["InventoryConfiguration"]
    equal(shown, wanted)
    listed = s3.list_bucket_inventory_configurations(Bucket=name)
    equal((listed["IsTruncated"], listed["InventoryConfigurationList"]), (False, [wanted]))
    elsewhere = dict(wanted, Destination={
        "S3BucketDestination": {"Bucket": "arn:aws:s3:::nobody-has-this", "Format": "CSV"},
    })
    refused(
        400, "InvalidS3DestinationBucket", s3.put_bucket_inventory_configuration,
        Bucket=name, Id="sizes", InventoryConfiguration=elsewhere,
    )

    def manifest():
        found = s3.list_objects_v2(Bucket=target, Prefix=f"p/{name}/sizes/").get("Contents", [])
        keys = [entry["Key"] for entry in found if entry["Key"].endswith("/manifest.json")]
        return json.loads(read(s3, target, keys[0])) if keys else None

    made = eventually("inventory", manifest)
    equal((made["sourceBucket"], made["fileSchema"]), (name, "Bucket, Key, Size, ETag"))
    rows = []
    for file in made["files"]:
        packed = read(s3, target, file["key"])
        equal((file["size"], file["MD5checksum"]), (len(packed), hashlib.md5(packed).hexdigest()))
        rows.extend(csv.reader(gzip.decompress(packed).decode().splitlines()))
    expected = {
        (name, urllib.parse.quote(key), str(len(body)), hashlib.md5(body).hexdigest())
        for key, body in content.items()
    }
    equal(len(rows), len(expected))
    equal({tuple(row) for row in rows}, expected)
    s3.delete_bucket_inventory_configuration(Bucket=name, Id="sizes")
    refused(404, "NoSuchConfiguration", s3.get_bucket_inventory_configuration, Bucket=name, Id="sizes")


@check
def lifecycle_rules(s3):
    """Days are short on this cluster."""
    name = bucket(s3, "lifecycle")
    refused(404, "NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    rules = [
        {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "log/"}, "Expiration": {"Days": 1}},
        {
            "ID": "old", "Status": "Enabled", "Filter": {"Tag": {"Key": "keep", "Value": "no"}},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 1, "NewerNoncurrentVersions": 1},
        },
        {
            "ID": "parts", "Status": "Enabled", "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
    ]
    for key in ["log/1", "kept"]:
        put(s3, name, key, b"x")
    for body in [b"1", b"2", b"3"]:
        put(s3, name, "tagged", body, Tagging="keep=no")
    s3.create_multipart_upload(Bucket=name, Key="upload")
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": rules})
    found = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    equal([(rule["ID"], rule["Status"]) for rule in found], [(rule["ID"], "Enabled") for rule in rules])
    assert 'rule-id="logs"' in s3.head_object(Bucket=name, Key="log/1").get("Expiration", 'rule-id="logs"')

    def keys():
        return [entry["Key"] for entry in s3.list_objects_v2(Bucket=name).get("Contents", [])]

    def versions(key):
        return len(s3.list_object_versions(Bucket=name, Prefix=key).get("Versions", []))

    eventually("expiry by prefix", lambda: keys() == ["kept", "tagged"])
    equal(s3.list_object_versions(Bucket=name, Prefix="log/")["DeleteMarkers"][0]["IsLatest"], True)
    eventually("expiry of all noncurrent versions but the newest", lambda: versions("tagged") == 2)
    eventually("end of the upload", lambda: "Uploads" not in s3.list_multipart_uploads(Bucket=name))
    equal((read(s3, name, "kept"), read(s3, name, "tagged")), (b"x", b"3"))
    s3.delete_bucket_lifecycle(Bucket=name)
    refused(404, "NoSuchLifecycleConfiguration", s3.get_bucket_lifecycle_configuration, Bucket=name)
    refused(
        400, "InvalidArgument", s3.put_bucket_lifecycle_configuration, Bucket=name,
        LifecycleConfiguration={"Rules": [dict(rules[0], Expiration={"Days": 0})]},
    )


@check
def payment_by_the_requester(s3):
    name = bucket(s3, "payment")
    equal(s3.get_bucket_request_payment(Bucket=name)["Payer"], "BucketOwner")
    put(s3, name, "k", b"content")
    public(s3, name)
    nobody = boto3.client(
        "s3",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        verify=os.environ["AWS_CA_BUNDLE"],
        config=Config(signature_version=UNSIGNED),
    )
    equal(read(nobody, name, "k"), b"content")
    s3.put_bucket_request_payment(Bucket=name, RequestPaymentConfiguration={"Payer": "Requester"})
    equal(s3.get_bucket_request_payment(Bucket=name)["Payer"], "Requester")
    equal(read(s3, name, "k"), b"content")
    refused(403, "AccessDenied", nobody.get_object, Bucket=name, Key="k")
    refused(403, "AccessDenied", nobody.get_object, Bucket=name, Key="k", RequestPayer="requester")
    s3.put_bucket_request_payment(Bucket=name, RequestPaymentConfiguration={"Payer": "BucketOwner"})
    equal(read(nobody, name, "k"), b"content")


@check
def event_notifications(s3):
    name = bucket(s3, "events")
    arn = "arn:holdfast:sqs::hook:webhook"
    equal(configurations(s3, name), {})

    def wanted(**more):
        return {"QueueConfigurations": [{"Id": "one", "QueueArn": arn, "Events": ["s3:ObjectCreated:*"], **more}]}

    def set_to(configuration):
        return s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=configuration)

    def not_taken(code, configuration, status=400):
        refused(status, code, set_to, configuration=configuration)

    def rules(*pairs):
        return {"Key": {"FilterRules": [{"Name": key, "Value": value} for key, value in pairs]}}

    eventually("target", lambda: taken(set_to, wanted()))
    not_taken("InvalidArgument", wanted(QueueArn="arn:holdfast:sqs::other:webhook"))
    not_taken("InvalidArgument", wanted(QueueArn="arn:aws:sqs:eu-west-1:123456789012:hook"))
    not_taken("InvalidArgument", wanted(Events=["s3:ObjectEaten"]))
    not_taken("NotImplemented", wanted(Events=["s3:Replication:*"]), 501)
    not_taken("InvalidArgument", wanted(Filter=rules(("prefix", "a"), ("prefix", "b"))))
    not_taken("InvalidArgument", wanted(Filter=rules(("infix", "a"))))
    second = {"Id": "two", "QueueArn": arn, "Events": ["s3:ObjectCreated:Put"], "Filter": rules(("prefix", "x"))}
    not_taken("InvalidArgument", {"QueueConfigurations": wanted()["QueueConfigurations"] + [second]})
    not_taken("NotImplemented", {"LambdaFunctionConfigurations": [
        {"LambdaFunctionArn": "arn:aws:lambda:local:123456789012:function:f", "Events": ["s3:ObjectCreated:*"]},
    ]}, 501)
    # A topic beside a queue, as long as no event has two places to go to.
    topic = {
        "Id": "removals", "TopicArn": "arn:holdfast:sns::hook:webhook", "Events": ["s3:ObjectRemoved:*"],
        "Filter": rules(("Prefix", "in/"), ("Suffix", ".jpg")),
    }
    set_to({**wanted(Filter=rules(("Prefix", "in/"))), "TopicConfigurations": [topic]})
    equal(configurations(s3, name), {**wanted(Filter=rules(("Prefix", "in/"))), "TopicConfigurations": [topic]})

    inbox = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            inbox.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    def told():
        records = [record for message in inbox for record in message.get("Records", [])]
        mine = [record for record in records if record["s3"]["bucket"]["name"] == name]
        mine.sort(key=lambda record: record["s3"]["object"]["sequencer"])
        found = []
        for record in mine:
            one = (record["eventName"], urllib.parse.unquote_plus(record["s3"]["object"]["key"]))
            if one not in found:
                found.append(one)
        return found

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["HOLDFAST_HOOK_PORT"])), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    put(s3, name, "in/ä b.jpg", b"content")
    put(s3, name, "out/b.jpg", b"content")
    s3.copy_object(Bucket=name, Key="in/c.jpg", CopySource={"Bucket": name, "Key": "out/b.jpg"})
    s3.delete_object(Bucket=name, Key="in/c.jpg")
    s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "in/ä b.jpg"}, {"Key": "in/never.jpg"}]})
    expected = [
        ("ObjectCreated:Put", "in/ä b.jpg"),
        ("ObjectCreated:Copy", "in/c.jpg"),
        ("ObjectRemoved:Delete", "in/c.jpg"),
        ("ObjectRemoved:Delete", "in/ä b.jpg"),
    ]
    eventually("events", lambda: len(told()) >= len(expected))
    equal(told(), expected)
    eventually("test event", lambda: any(m.get("Event") == "s3:TestEvent" and m["Bucket"] == name for m in inbox))
    set_to({})
    equal(configurations(s3, name), {})
    server.shutdown()
    server.server_close()


def configurations(s3, name):
    """What a bucket asks to be told, without what boto3 adds."""
    answer = s3.get_bucket_notification_configuration(Bucket=name)
    answer.pop("ResponseMetadata")
    return answer


def taken(call, *arguments):
    """Whether a call is not refused for a target that a node does not know yet."""
    try:
        call(*arguments)
        return True
    except ClientError as error:
        if "Unable to validate" in str(error) or "NotImplemented" in str(error):
            return False
        raise


def main(names):
    s3 = client()
    for function in CHECKS:
        if not names or function.__name__ in names:
            print(function.__name__, flush=True)
            function(s3)


if __name__ == "__main__":
    main(sys.argv[1:])
