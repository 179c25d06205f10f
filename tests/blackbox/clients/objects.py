"""What boto3 sees of versions, locks, tags, conditions, listings and multipart uploads, on a real cluster.

objects.py [NAME ...] runs the checks of these names, or all, each in buckets of its own, and prints their names.
Keys, endpoint and CA come from the environment. Fails on the first thing that is not as Amazon documents it.
"""

import base64
import datetime
import hashlib
import json
import os
import sys
import uuid
import zlib

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

PART_SIZE_MIN = 5 * 1024 * 1024
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def client():
    return boto3.client(
        "s3",
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        verify=os.environ["AWS_CA_BUNDLE"],
        config=Config(retries={"max_attempts": 1}),
    )


def refused(status, code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = (error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"])
        assert found == (status, code), f"{found} where {(status, code)} was expected"
        return error.response
    raise AssertionError(f"{call.__name__} was not refused with {code}")


def equal(found, expected):
    assert found == expected, f"{found!r} where {expected!r} was expected"


def bucket(s3, name, **arguments):
    name = f"{name}-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name, **arguments)
    return name


def versioned(s3, name, status="Enabled"):
    name = bucket(s3, name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": status})
    return name


def put(s3, name, key, body, **arguments):
    return s3.put_object(Bucket=name, Key=key, Body=body, **arguments)


def read(s3, name, key, **arguments):
    return s3.get_object(Bucket=name, Key=key, **arguments)["Body"].read()


@check
def versions_and_delete_markers(s3):
    name = versioned(s3, "versions")
    equal(s3.get_bucket_versioning(Bucket=name)["Status"], "Enabled")
    ids = [put(s3, name, "k", f"{n}")["VersionId"] for n in range(3)]
    equal(read(s3, name, "k"), b"2")
    equal([read(s3, name, "k", VersionId=version) for version in ids], [b"0", b"1", b"2"])
    marker = s3.delete_object(Bucket=name, Key="k")
    assert marker["DeleteMarker"]
    refused(404, "NoSuchKey", s3.get_object, Bucket=name, Key="k")
    answer = refused(405, "405", s3.head_object, Bucket=name, Key="k", VersionId=marker["VersionId"])
    equal(answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-delete-marker"], "true")
    refused(405, "MethodNotAllowed", s3.get_object, Bucket=name, Key="k", VersionId=marker["VersionId"])
    listed = s3.list_object_versions(Bucket=name)
    equal([version["VersionId"] for version in listed["Versions"]], ids[::-1])
    equal([found["VersionId"] for found in listed["DeleteMarkers"]], [marker["VersionId"]])
    refused(409, "BucketNotEmpty", s3.delete_bucket, Bucket=name)
    s3.delete_object(Bucket=name, Key="k", VersionId=marker["VersionId"])
    equal(read(s3, name, "k"), b"2")
    s3.delete_object(Bucket=name, Key="k", VersionId=ids[2])
    equal(read(s3, name, "k"), b"1")
    refused(404, "NoSuchVersion", s3.get_object, Bucket=name, Key="k", VersionId=ids[2])
    refused(400, "InvalidArgument", s3.get_object, Bucket=name, Key="k", VersionId="nonsense")

    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Suspended"})
    for body in ["null", "again"]:
        assert "VersionId" not in put(s3, name, "k", body), "what has no id is told none"
    equal(read(s3, name, "k", VersionId="null"), b"again")
    answer = s3.delete_objects(
        Bucket=name,
        Delete={"Objects": [{"Key": "k", "VersionId": "null"}] + [{"Key": "k", "VersionId": v} for v in ids]},
    )
    equal(len(answer["Deleted"]), 4)
    answer = s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "x"}], "Quiet": False})
    s3.delete_object(Bucket=name, Key="x", VersionId=answer["Deleted"][0]["DeleteMarkerVersionId"])
    s3.delete_bucket(Bucket=name)


@check
def listings_of_versions_and_uploads_page(s3):
    name = versioned(s3, "pages")
    expected = []
    for key in ["a", "b/1", "b/2", "c"]:
        expected += [(key, put(s3, name, key, f"{n}")["VersionId"]) for n in range(2)][::-1]
    pages = s3.get_paginator("list_object_versions").paginate(Bucket=name, PaginationConfig={"PageSize": 3})
    equal([(v["Key"], v["VersionId"]) for page in pages for v in page["Versions"]], expected)
    grouped = s3.list_object_versions(Bucket=name, Delimiter="/")
    equal([prefix["Prefix"] for prefix in grouped["CommonPrefixes"]], ["b/"])
    uploads = [(key, s3.create_multipart_upload(Bucket=name, Key=key)["UploadId"]) for key in "xxyz"]
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=name, PaginationConfig={"PageSize": 1})
    equal([(u["Key"], u["UploadId"]) for page in pages for u in page["Uploads"]], uploads)
    for key, upload in uploads:
        s3.abort_multipart_upload(Bucket=name, Key=key, UploadId=upload)
    equal("Uploads" in s3.list_multipart_uploads(Bucket=name), False)


@check
def listings_of_objects(s3):
    name = bucket(s3, "lists")
    keys = ["a b", "a+b", "b/1", "b/2", "c//d", "\u00fc"]
    for key in keys:
        put(s3, name, key, "x")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=name, PaginationConfig={"PageSize": 1})
    equal([item["Key"] for page in pages for item in page["Contents"]], keys)
    pages = s3.get_paginator("list_objects").paginate(Bucket=name, PaginationConfig={"PageSize": 2})
    equal([item["Key"] for page in pages for item in page["Contents"]], keys)
    grouped = s3.list_objects_v2(Bucket=name, Delimiter="/", MaxKeys=3)
    equal(([i["Key"] for i in grouped["Contents"]], [p["Prefix"] for p in grouped["CommonPrefixes"]]), (["a b", "a+b"], ["b/"]))
    equal((grouped["KeyCount"], grouped["IsTruncated"]), (3, True))
    rest = s3.list_objects_v2(Bucket=name, Delimiter="/", ContinuationToken=grouped["NextContinuationToken"])
    equal(([i["Key"] for i in rest["Contents"]], [p["Prefix"] for p in rest["CommonPrefixes"]]), (["\u00fc"], ["c/"]))
    equal([i["Key"] for i in s3.list_objects_v2(Bucket=name, StartAfter="c")["Contents"]], keys[4:])
    equal("Owner" in s3.list_objects_v2(Bucket=name, FetchOwner=True)["Contents"][0], True)
    equal(s3.list_objects_v2(Bucket=name, MaxKeys=0)["KeyCount"], 0)
    refused(400, "InvalidArgument", s3.list_objects_v2, Bucket=name, MaxKeys=-1)
    equal(s3.list_buckets(Prefix=name)["Buckets"][0]["Name"], name)


@check
def tags_of_objects_and_buckets(s3):
    name = versioned(s3, "tags")
    first = put(s3, name, "k", "1", Tagging="a=1&b=2%20x")["VersionId"]
    put(s3, name, "k", "2")
    equal(s3.get_object(Bucket=name, Key="k", VersionId=first)["TagCount"], 2)
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2 x"}]
    equal(s3.get_object_tagging(Bucket=name, Key="k", VersionId=first)["TagSet"], tags)
    equal(s3.get_object_tagging(Bucket=name, Key="k")["TagSet"], [])
    s3.put_object_tagging(Bucket=name, Key="k", Tagging={"TagSet": tags})
    s3.copy_object(Bucket=name, Key="copy", CopySource=f"{name}/k")
    equal(s3.get_object_tagging(Bucket=name, Key="copy")["TagSet"], tags)
    s3.copy_object(Bucket=name, Key="copy", CopySource=f"{name}/k", TaggingDirective="REPLACE", Tagging="c=3")
    equal(s3.get_object_tagging(Bucket=name, Key="copy")["TagSet"], [{"Key": "c", "Value": "3"}])
    s3.delete_object_tagging(Bucket=name, Key="copy")
    equal(s3.get_object_tagging(Bucket=name, Key="copy")["TagSet"], [])
    many = [{"Key": f"{n}", "Value": ""} for n in range(11)]
    refused(400, "BadRequest", s3.put_object_tagging, Bucket=name, Key="k", Tagging={"TagSet": many})
    long = [{"Key": "k" * 129, "Value": ""}]
    refused(400, "InvalidTag", s3.put_object_tagging, Bucket=name, Key="k", Tagging={"TagSet": long})
    refused(404, "NoSuchTagSet", s3.get_bucket_tagging, Bucket=name)
    s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
    equal(s3.get_bucket_tagging(Bucket=name)["TagSet"], tags)
    s3.delete_bucket_tagging(Bucket=name)
    refused(404, "NoSuchTagSet", s3.get_bucket_tagging, Bucket=name)


@check
def object_lock(s3):
    name = bucket(s3, "lock", ObjectLockEnabledForBucket=True)
    configuration = s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"]
    equal(configuration, {"ObjectLockEnabled": "Enabled"})
    configuration["Rule"] = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    s3.put_object_lock_configuration(Bucket=name, ObjectLockConfiguration=configuration)
    equal(s3.get_object_lock_configuration(Bucket=name)["ObjectLockConfiguration"], configuration)
    version = put(s3, name, "k", "x")["VersionId"]
    equal(s3.head_object(Bucket=name, Key="k")["ObjectLockMode"], "GOVERNANCE")
    kept = {"Bucket": name, "Key": "k", "VersionId": version}
    refused(403, "AccessDenied", s3.delete_object, **kept)
    answer = s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "k", "VersionId": version}]})
    equal([error["Code"] for error in answer["Errors"]], ["AccessDenied"])
    s3.delete_object(**kept, BypassGovernanceRetention=True)

    until = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0) + datetime.timedelta(days=2)
    arguments = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until, "ObjectLockLegalHoldStatus": "ON"}
    version = put(s3, name, "firm", "x", **arguments)["VersionId"]
    firm = {"Bucket": name, "Key": "firm", "VersionId": version}
    equal(s3.get_object_retention(**firm)["Retention"], {"Mode": "COMPLIANCE", "RetainUntilDate": until})
    equal(s3.get_object_legal_hold(**firm)["LegalHold"], {"Status": "ON"})
    s3.put_object_legal_hold(**firm, LegalHold={"Status": "OFF"})
    equal(s3.get_object_legal_hold(**firm)["LegalHold"], {"Status": "OFF"})
    refused(403, "AccessDenied", s3.delete_object, **firm, BypassGovernanceRetention=True)
    sooner = {"Mode": "COMPLIANCE", "RetainUntilDate": until - datetime.timedelta(days=1)}
    refused(403, "AccessDenied", s3.put_object_retention, **firm, Retention=sooner, BypassGovernanceRetention=True)
    past = {"Mode": "COMPLIANCE", "RetainUntilDate": until - datetime.timedelta(days=9)}
    refused(400, "InvalidArgument", s3.put_object_retention, **firm, Retention=past)
    suspended = {"Status": "Suspended"}
    refused(409, "InvalidBucketState", s3.put_bucket_versioning, Bucket=name, VersioningConfiguration=suspended)
    plain = bucket(s3, "plain")
    refused(404, "ObjectLockConfigurationNotFoundError", s3.get_object_lock_configuration, Bucket=plain)
    put(s3, plain, "k", "x")
    refused(400, "InvalidRequest", s3.get_object_retention, Bucket=plain, Key="k")


@check
def conditions(s3):
    name = bucket(s3, "conditions")
    etag = put(s3, name, "k", "x", IfNoneMatch="*")["ETag"]
    refused(412, "PreconditionFailed", put, s3=s3, name=name, key="k", body="y", IfNoneMatch="*")
    refused(412, "PreconditionFailed", put, s3=s3, name=name, key="k", body="y", IfMatch='"other"')
    refused(404, "NoSuchKey", put, s3=s3, name=name, key="gone", body="y", IfMatch=etag)
    etag = put(s3, name, "k", "y", IfMatch=etag)["ETag"]
    modified = s3.head_object(Bucket=name, Key="k")["LastModified"]
    later = modified + datetime.timedelta(seconds=1)
    get = {"Bucket": name, "Key": "k"}
    refused(304, "304", s3.get_object, **get, IfNoneMatch=etag)
    refused(412, "PreconditionFailed", s3.get_object, **get, IfMatch='"other"')
    refused(304, "304", s3.get_object, **get, IfModifiedSince=modified)
    earlier = modified - datetime.timedelta(seconds=1)
    refused(412, "PreconditionFailed", s3.get_object, **get, IfUnmodifiedSince=earlier)
    equal(read(s3, name, "k", IfMatch=etag, IfUnmodifiedSince=earlier), b"y")
    refused(304, "304", s3.get_object, **get, IfNoneMatch=etag, IfModifiedSince=earlier)
    equal(read(s3, name, "k", IfUnmodifiedSince=later), b"y")
    copy = {"Bucket": name, "Key": "copy", "CopySource": f"{name}/k"}
    refused(412, "PreconditionFailed", s3.copy_object, **copy, CopySourceIfMatch='"other"')
    refused(412, "PreconditionFailed", s3.copy_object, **copy, CopySourceIfNoneMatch=etag)
    s3.copy_object(**copy, CopySourceIfMatch=etag)
    refused(412, "PreconditionFailed", s3.delete_object, **get, IfMatch='"other"')
    answer = s3.delete_objects(Bucket=name, Delete={"Objects": [{"Key": "k", "ETag": '"other"'}]})
    equal([error["Code"] for error in answer["Errors"]], ["PreconditionFailed"])
    s3.delete_object(**get, IfMatch=etag)
    refused(404, "NoSuchKey", s3.get_object, **get)
    s3.delete_object(**get, IfMatch=etag)


@check
def copies(s3):
    name = versioned(s3, "copies")
    first = put(s3, name, "k", "1", ContentType="text/a", Metadata={"a": "1"})["VersionId"]
    put(s3, name, "k", "2")
    refused(400, "InvalidRequest", s3.copy_object, Bucket=name, Key="k", CopySource=f"{name}/k")
    answer = s3.copy_object(
        Bucket=name, Key="k", CopySource={"Bucket": name, "Key": "k", "VersionId": first}
    )
    equal(answer["CopySourceVersionId"], first)
    restored = s3.head_object(Bucket=name, Key="k")
    equal((restored["Metadata"], restored["ContentType"]), ({"a": "1"}, "text/a"))
    replace = {"MetadataDirective": "REPLACE", "Metadata": {"b": "2"}, "ContentType": "text/b"}
    s3.copy_object(Bucket=name, Key="k", CopySource=f"{name}/k", **replace)
    replaced = s3.head_object(Bucket=name, Key="k")
    equal((replaced["Metadata"], replaced["ContentType"]), ({"b": "2"}, "text/b"))
    refused(404, "NoSuchKey", s3.copy_object, Bucket=name, Key="x", CopySource=f"{name}/gone")


@check
def multipart_uploads(s3):
    name = versioned(s3, "multipart")
    parts = [b"a" * PART_SIZE_MIN, b"b" * 1000]
    upload = {"Bucket": name, "Key": "k"}
    arguments = {"ChecksumAlgorithm": "CRC32", "ChecksumType": "COMPOSITE", "Tagging": "a=1"}
    upload["UploadId"] = s3.create_multipart_upload(**upload, **arguments)["UploadId"]
    done = []
    for number, body in enumerate(parts, 1):
        answer = s3.upload_part(**upload, PartNumber=number, Body=body, ChecksumAlgorithm="CRC32")
        done.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    pages = s3.get_paginator("list_parts").paginate(**upload, PaginationConfig={"PageSize": 1})
    equal([part["Size"] for page in pages for part in page["Parts"]], [len(part) for part in parts])
    wrong = {"Parts": done[::-1]}
    refused(400, "InvalidPartOrder", s3.complete_multipart_upload, **upload, MultipartUpload=wrong)
    wrong = {"Parts": [dict(done[0], PartNumber=3)]}
    refused(400, "InvalidPart", s3.complete_multipart_upload, **upload, MultipartUpload=wrong)
    whole = {"Parts": done}
    refused(400, "InvalidRequest", s3.complete_multipart_upload, **upload, MultipartUpload=whole, MpuObjectSize=1)
    finished = s3.complete_multipart_upload(**upload, MultipartUpload=whole)
    of_etags = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts)).hexdigest()
    equal(finished["ETag"], f'"{of_etags}-2"')
    values = b"".join(zlib.crc32(part).to_bytes(4, "big") for part in parts)
    composite = base64.b64encode(zlib.crc32(values).to_bytes(4, "big")).decode() + "-2"
    equal(finished["ChecksumCRC32"], composite)
    again = s3.complete_multipart_upload(**upload, MultipartUpload=whole)
    equal((again["ETag"], again["VersionId"]), (finished["ETag"], finished["VersionId"]))
    equal(s3.get_object_tagging(Bucket=name, Key="k")["TagSet"], [{"Key": "a", "Value": "1"}])

    second = s3.get_object(Bucket=name, Key="k", PartNumber=2)
    equal((second["Body"].read(), second["PartsCount"]), (parts[1], 2))
    equal(second["ResponseMetadata"]["HTTPStatusCode"], 206)
    equal(second["ContentRange"], f"bytes {PART_SIZE_MIN}-{PART_SIZE_MIN + 999}/{PART_SIZE_MIN + 1000}")
    refused(416, "InvalidPartNumber", s3.get_object, Bucket=name, Key="k", PartNumber=3)
    asked = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"]
    found = s3.get_object_attributes(Bucket=name, Key="k", ObjectAttributes=asked, MaxParts=1)
    equal((found["ObjectSize"], found["StorageClass"]), (PART_SIZE_MIN + 1000, "STANDARD"))
    equal(found["ETag"], finished["ETag"].strip('"'))
    equal(found["Checksum"]["ChecksumCRC32"], composite)
    listed = found["ObjectParts"]
    equal((listed["TotalPartsCount"], listed["IsTruncated"], listed["NextPartNumberMarker"]), (2, True, 1))
    equal(listed["Parts"][0]["Size"], PART_SIZE_MIN)
    found = s3.get_object_attributes(Bucket=name, Key="k", ObjectAttributes=asked, PartNumberMarker=1)
    equal([part["PartNumber"] for part in found["ObjectParts"]["Parts"]], [2])

    copied = {"Bucket": name, "Key": "copied"}
    copied["UploadId"] = s3.create_multipart_upload(**copied)["UploadId"]
    source = {"Bucket": name, "Key": "k", "VersionId": finished["VersionId"]}
    part = s3.upload_part_copy(
        **copied, PartNumber=5, CopySource=source, CopySourceRange=f"bytes=1-{PART_SIZE_MIN + 999}"
    )
    equal(part["CopySourceVersionId"], finished["VersionId"])
    refused(
        412, "PreconditionFailed", s3.upload_part_copy,
        **copied, PartNumber=6, CopySource=source, CopySourceIfMatch='"other"',
    )
    small = s3.upload_part(**copied, PartNumber=6, Body=b"c")
    last = s3.upload_part(**copied, PartNumber=7, Body=b"d")
    part = {"PartNumber": 5, "ETag": part["CopyPartResult"]["ETag"]}
    rest = [{"PartNumber": 6, "ETag": small["ETag"]}, {"PartNumber": 7, "ETag": last["ETag"]}]
    refused(400, "EntityTooSmall", s3.complete_multipart_upload, **copied, MultipartUpload={"Parts": [part, *rest]})
    s3.complete_multipart_upload(**copied, MultipartUpload={"Parts": [part, rest[1]]})
    equal(read(s3, name, "copied"), (b"".join(parts) + b"d")[1:])
    refused(404, "NoSuchUpload", s3.abort_multipart_upload, **copied)
    refused(404, "NoSuchUpload", s3.list_parts, **dict(copied, UploadId="nonsense"))


@check
def settings_of_buckets(s3):
    name = bucket(s3, "settings")
    # The first region has no name here.
    equal(s3.get_bucket_location(Bucket=name)["LocationConstraint"], None)
    equal(s3.head_bucket(Bucket=name)["ResponseMetadata"]["HTTPStatusCode"], 200)
    refused(404, "404", s3.head_bucket, Bucket=name + "-not")
    owner = s3.get_bucket_acl(Bucket=name)["Owner"]["ID"]
    grants = s3.get_bucket_acl(Bucket=name)["Grants"]
    equal([(grant["Grantee"]["ID"], grant["Permission"]) for grant in grants], [(owner, "FULL_CONTROL")])

    equal(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"], True)
    s3.delete_public_access_block(Bucket=name)
    refused(404, "NoSuchPublicAccessBlockConfiguration", s3.get_public_access_block, Bucket=name)

    rules = s3.get_bucket_ownership_controls(Bucket=name)["OwnershipControls"]["Rules"]
    equal(rules, [{"ObjectOwnership": "BucketOwnerEnforced"}])
    s3.delete_bucket_ownership_controls(Bucket=name)
    refused(404, "OwnershipControlsNotFoundError", s3.get_bucket_ownership_controls, Bucket=name)

    def default():
        rules = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"]
        return rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"]

    def sealed_with(key):
        put(s3, name, key, b"body")
        return s3.head_object(Bucket=name, Key=key)["ServerSideEncryption"]

    equal((default(), sealed_with("by default")), ("AES256", "AES256"))
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    equal((default(), sealed_with("by name")), ("aws:kms", "aws:kms"))
    equal(read(s3, name, "by name"), b"body")
    s3.delete_bucket_encryption(Bucket=name)
    equal((default(), sealed_with("again")), ("AES256", "AES256"))

    refused(404, "NoSuchBucketPolicy", s3.get_bucket_policy, Bucket=name)
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{name}/secret"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    s3.put_bucket_policy(Bucket=name, Policy=document)
    equal(json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])["Statement"][0]["Effect"], "Deny")
    put(s3, name, "secret", b"x")
    refused(403, "AccessDenied", s3.get_object, Bucket=name, Key="secret")
    s3.delete_bucket_policy(Bucket=name)
    equal(read(s3, name, "secret"), b"x")

    refused(404, "ReplicationConfigurationNotFoundError", s3.get_bucket_replication, Bucket=name)
    s3.delete_bucket_replication(Bucket=name)
    equal(s3.get_bucket_accelerate_configuration(Bucket=name).get("Status"), None)
    s3.put_bucket_accelerate_configuration(Bucket=name, AccelerateConfiguration={"Status": "Suspended"})
    refused(
        501, "NotImplemented", s3.put_bucket_accelerate_configuration,
        Bucket=name, AccelerateConfiguration={"Status": "Enabled"},
    )


def main(names):
    s3 = client()
    for function in CHECKS:
        if not names or function.__name__ in names:
            print(function.__name__, flush=True)
            function(s3)


if __name__ == "__main__":
    main(sys.argv[1:])
