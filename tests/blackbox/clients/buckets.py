"""What boto3, and a browser without keys, see of what buckets do by themselves: websites.

buckets.py [NAME ...] runs the checks of these names, or all, each in buckets of its own, and prints their names.
Keys, endpoint and CA come from the environment, and the domain of the cluster in HOLDFAST_S3_DOMAIN. Fails on the
first thing that is not as Amazon documents it.
"""

import http.client
import json
import os
import socket
import ssl
import sys
import urllib.parse

from objects import bucket, client, equal, put, refused

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


def main(names):
    s3 = client()
    for function in CHECKS:
        if not names or function.__name__ in names:
            print(function.__name__, flush=True)
            function(s3)


if __name__ == "__main__":
    main(sys.argv[1:])
