"""What boto3 sees of accounts, users, roles, policies, lists, forms and cross-origin rules, on a real cluster.

identity.py CLUSTER_JSON [NAME ...] runs the checks of these names, or all, each in buckets and with users of its
own, and prints their names. Fails on the first thing that is not as Amazon documents it.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
import uuid

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def client(service, keys, **arguments):
    config = Config(retries={"max_attempts": 1}, **arguments)
    return boto3.client(
        service,
        endpoint_url=os.environ["AWS_ENDPOINT_URL"],
        verify=os.environ["AWS_CA_BUNDLE"],
        region_name="us-east-1",
        config=config,
        **({} if keys is None else keys),
    )


def keys(entry):
    return {"aws_access_key_id": entry["access_key"], "aws_secret_access_key": entry["secret_key"]}


def temporary(credentials):
    return {
        "aws_access_key_id": credentials["AccessKeyId"],
        "aws_secret_access_key": credentials["SecretAccessKey"],
        "aws_session_token": credentials["SessionToken"],
    }


def refused(status, code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        found = (error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"])
        assert found == (status, code), f"{found} where {(status, code)} was expected"
        return
    raise AssertionError(f"{call.__name__} was not refused with {code}")


def equal(found, expected):
    assert found == expected, f"{found!r} where {expected!r} was expected"


def name(word):
    return f"{word}-{uuid.uuid4().hex[:8]}"


def read(s3, bucket, key):
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


class World:
    """The accounts of the cluster, and clients of each."""

    def __init__(self, path):
        with open(path) as file:
            self.tenants = json.load(file)["tenants"]
        self.demo, self.other = self.tenants[0], self.tenants[1]
        self.alt = self.demo["accounts"][0]
        self.s3 = client("s3", keys(self.demo))
        self.alt_s3 = client("s3", keys(self.alt))
        self.other_s3 = client("s3", keys(self.other))
        self.anonymous = client("s3", None, signature_version=UNSIGNED)
        self.iam = client("iam", keys(self.demo))

    def bucket(self, word, opened=False):
        bucket = name(word)
        self.s3.create_bucket(Bucket=bucket)
        if opened:
            self.s3.delete_public_access_block(Bucket=bucket)
            rules = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
            self.s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)
        return bucket


@check
def accounts_share_names_and_tenants_do_not(world):
    bucket = world.bucket("names")
    refused(409, "BucketAlreadyExists", world.alt_s3.create_bucket, Bucket=bucket)
    world.other_s3.create_bucket(Bucket=bucket)
    equal(world.s3.list_buckets()["Owner"]["ID"], world.demo["id"])
    assert bucket not in [entry["Name"] for entry in world.alt_s3.list_buckets()["Buckets"]]
    world.s3.put_object(Bucket=bucket, Key="k", Body=b"ours")
    refused(404, "NoSuchKey", world.other_s3.get_object, Bucket=bucket, Key="k")
    refused(403, "AccessDenied", world.alt_s3.get_object, Bucket=bucket, Key="k")


@check
def lists_grant_by_id_and_address(world):
    bucket = world.bucket("lists", opened=True)
    world.s3.put_object(Bucket=bucket, Key="k", Body=b"v", GrantRead=f"emailAddress={world.alt['email']}")
    equal(read(world.alt_s3, bucket, "k"), b"v")
    refused(403, "AccessDenied", world.anonymous.get_object, Bucket=bucket, Key="k")
    world.s3.put_object_acl(Bucket=bucket, Key="k", GrantFullControl=f"id={world.alt['id']}")
    grants = world.alt_s3.get_object_acl(Bucket=bucket, Key="k")["Grants"]
    equal([grant["Permission"] for grant in grants], ["FULL_CONTROL"])
    world.s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    equal([entry["Key"] for entry in world.anonymous.list_objects_v2(Bucket=bucket)["Contents"]], ["k"])
    block = {"IgnorePublicAcls": True}
    world.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    refused(403, "AccessDenied", world.anonymous.list_objects_v2, Bucket=bucket)


@check
def policies_of_buckets(world):
    bucket = world.bucket("policies", opened=True)
    world.s3.put_object(Bucket=bucket, Key="open/k", Body=b"v", Tagging="class=public")
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{world.alt['number']}:root"},
        "Action": "s3:ListBucket",
        "Resource": f"arn:aws:s3:::{bucket}",
        "Condition": {"StringLike": {"s3:prefix": "open/*"}},
    }
    tagged = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"StringEquals": {"s3:ExistingObjectTag/class": "public"}},
    }
    world.s3.put_bucket_policy(Bucket=bucket, Policy=policy(statement, tagged))
    equal(world.s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"], True)
    equal(world.alt_s3.list_objects_v2(Bucket=bucket, Prefix="open/")["KeyCount"], 1)
    refused(403, "AccessDenied", world.alt_s3.list_objects_v2, Bucket=bucket)
    equal(read(world.anonymous, bucket, "open/k"), b"v")
    world.s3.delete_object_tagging(Bucket=bucket, Key="open/k")
    refused(403, "AccessDenied", world.anonymous.get_object, Bucket=bucket, Key="open/k")
    refused(400, "MalformedPolicy", world.s3.put_bucket_policy, Bucket=bucket, Policy=policy({"Effect": "Allow"}))


@check
def users_keys_groups_and_sessions(world):
    user, group, bucket = name("user"), name("group"), world.bucket("users")
    world.s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    equal(world.iam.create_user(UserName=user, Path="/team/")["User"]["UserName"], user)
    made = world.iam.create_access_key(UserName=user)["AccessKey"]
    own = {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]}
    s3, sts = client("s3", own), client("sts", own)
    equal(sts.get_caller_identity()["Arn"], f"arn:aws:iam::{world.demo['number']}:user/team/{user}")
    refused(403, "AccessDenied", s3.get_object, Bucket=bucket, Key="k")
    world.iam.create_group(GroupName=group)
    world.iam.add_user_to_group(GroupName=group, UserName=user)
    document = policy({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    world.iam.put_group_policy(GroupName=group, PolicyName="all", PolicyDocument=document)
    equal(world.iam.get_group_policy(GroupName=group, PolicyName="all")["PolicyDocument"], json.loads(document))
    equal(read(s3, bucket, "k"), b"v")
    session = client("s3", temporary(sts.get_session_token()["Credentials"]))
    equal(read(session, bucket, "k"), b"v")
    refused(409, "DeleteConflict", world.iam.delete_user, UserName=user)
    world.iam.delete_access_key(UserName=user, AccessKeyId=made["AccessKeyId"])
    refused(403, "InvalidAccessKeyId", s3.get_object, Bucket=bucket, Key="k")
    refused(400, "InvalidToken", session.get_object, Bucket=bucket, Key="k")
    world.iam.remove_user_from_group(GroupName=group, UserName=user)
    world.iam.delete_group_policy(GroupName=group, PolicyName="all")
    world.iam.delete_group(GroupName=group)
    world.iam.delete_user(UserName=user)
    refused(404, "NoSuchEntity", world.iam.get_user, UserName=user)


@check
def roles_across_accounts(world):
    role, bucket = name("role"), world.bucket("roles")
    trust = policy({"Effect": "Allow", "Principal": {"AWS": world.alt["number"]}, "Action": "sts:AssumeRole"})
    arn = world.iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    world.iam.attach_role_policy(RoleName=role, PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    sts = client("sts", keys(world.alt))
    assumed = sts.assume_role(RoleArn=arn, RoleSessionName="test")
    session = client("s3", temporary(assumed["Credentials"]))
    session.put_object(Bucket=bucket, Key="k", Body=b"v")
    narrow = policy({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
    assumed = sts.assume_role(RoleArn=arn, RoleSessionName="test", Policy=narrow)
    session = client("s3", temporary(assumed["Credentials"]))
    equal(read(session, bucket, "k"), b"v")
    refused(403, "AccessDenied", session.put_object, Bucket=bucket, Key="k", Body=b"w")
    refused(403, "AccessDenied", client("sts", keys(world.other)).assume_role, RoleArn=arn, RoleSessionName="test")
    world.iam.detach_role_policy(RoleName=role, PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    world.iam.delete_role(RoleName=role)
    refused(400, "InvalidToken", session.get_object, Bucket=bucket, Key="k")


ALL = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
FULL_ACCESS = "arn:aws:iam::aws:policy/AmazonS3FullAccess"


@check
def everything_about_users(world):
    iam, user, other = world.iam, name("user"), name("renamed")
    iam.create_user(UserName=user, Tags=[{"Key": "team", "Value": "mail"}])
    equal(iam.get_user(UserName=user)["User"]["Path"], "/")
    iam.tag_user(UserName=user, Tags=[{"Key": "floor", "Value": "3"}])
    iam.untag_user(UserName=user, TagKeys=["team"])
    equal(iam.list_user_tags(UserName=user)["Tags"], [{"Key": "floor", "Value": "3"}])
    iam.update_user(UserName=user, NewUserName=other, NewPath="/moved/")
    listed = iam.list_users(PathPrefix="/moved/")["Users"]
    equal([entry["UserName"] for entry in listed if entry["UserName"] == other], [other])

    made = iam.create_access_key(UserName=other)["AccessKey"]
    s3 = client("s3", {"aws_access_key_id": made["AccessKeyId"], "aws_secret_access_key": made["SecretAccessKey"]})
    bucket = world.bucket("of-user")
    iam.put_user_policy(UserName=other, PolicyName="all", PolicyDocument=policy(ALL))
    equal(iam.get_user_policy(UserName=other, PolicyName="all")["PolicyDocument"]["Statement"][0]["Action"], "s3:*")
    equal(iam.list_user_policies(UserName=other)["PolicyNames"], ["all"])
    s3.put_object(Bucket=bucket, Key="k", Body=b"v")
    key = {"UserName": other, "AccessKeyId": made["AccessKeyId"]}
    iam.update_access_key(**key, Status="Inactive")
    refused(403, "InvalidAccessKeyId", s3.get_object, Bucket=bucket, Key="k")
    iam.update_access_key(**key, Status="Active")
    equal(read(s3, bucket, "k"), b"v")
    equal([entry["Status"] for entry in iam.list_access_keys(UserName=other)["AccessKeyMetadata"]], ["Active"])
    equal(iam.get_access_key_last_used(AccessKeyId=made["AccessKeyId"])["UserName"], other)
    iam.delete_user_policy(UserName=other, PolicyName="all")
    refused(403, "AccessDenied", s3.get_object, Bucket=bucket, Key="k")
    iam.attach_user_policy(UserName=other, PolicyArn=FULL_ACCESS)
    equal([found["PolicyArn"] for found in iam.list_attached_user_policies(UserName=other)["AttachedPolicies"]], [FULL_ACCESS])
    equal(read(s3, bucket, "k"), b"v")
    iam.detach_user_policy(UserName=other, PolicyArn=FULL_ACCESS)
    assert iam.get_account_summary()["SummaryMap"]["Users"] >= 1
    equal(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"], [])
    equal(iam.list_account_aliases()["AccountAliases"], [world.demo["name"]])
    iam.delete_access_key(**key)
    iam.delete_user(UserName=other)


@check
def everything_about_groups(world):
    iam, user, group, other = world.iam, name("user"), name("group"), name("regrouped")
    iam.create_user(UserName=user)
    iam.create_group(GroupName=group)
    iam.add_user_to_group(GroupName=group, UserName=user)
    equal([entry["UserName"] for entry in iam.get_group(GroupName=group)["Users"]], [user])
    equal([entry["GroupName"] for entry in iam.list_groups_for_user(UserName=user)["Groups"]], [group])
    iam.update_group(GroupName=group, NewGroupName=other)
    assert other in [entry["GroupName"] for entry in iam.list_groups()["Groups"]]
    iam.put_group_policy(GroupName=other, PolicyName="all", PolicyDocument=policy(ALL))
    equal(iam.list_group_policies(GroupName=other)["PolicyNames"], ["all"])
    iam.attach_group_policy(GroupName=other, PolicyArn=FULL_ACCESS)
    attached = iam.list_attached_group_policies(GroupName=other)["AttachedPolicies"]
    equal([found["PolicyArn"] for found in attached], [FULL_ACCESS])
    iam.detach_group_policy(GroupName=other, PolicyArn=FULL_ACCESS)
    iam.delete_group_policy(GroupName=other, PolicyName="all")
    refused(409, "DeleteConflict", iam.delete_group, GroupName=other)
    iam.remove_user_from_group(GroupName=other, UserName=user)
    iam.delete_group(GroupName=other)
    iam.delete_user(UserName=user)


@check
def everything_about_roles(world):
    iam, role = world.iam, name("role")
    trust = policy({"Effect": "Allow", "Principal": {"AWS": world.alt["number"]}, "Action": "sts:AssumeRole"})
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust, Description="first", MaxSessionDuration=3600)
    iam.update_role(RoleName=role, Description="second", MaxSessionDuration=7200)
    found = iam.get_role(RoleName=role)["Role"]
    equal((found["Description"], found["MaxSessionDuration"]), ("second", 7200))
    iam.tag_role(RoleName=role, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    iam.untag_role(RoleName=role, TagKeys=["a"])
    equal(iam.list_role_tags(RoleName=role)["Tags"], [{"Key": "b", "Value": "2"}])
    assert role in [entry["RoleName"] for entry in iam.list_roles()["Roles"]]
    iam.put_role_policy(RoleName=role, PolicyName="all", PolicyDocument=policy(ALL))
    equal(iam.get_role_policy(RoleName=role, PolicyName="all")["PolicyName"], "all")
    equal(iam.list_role_policies(RoleName=role)["PolicyNames"], ["all"])
    iam.attach_role_policy(RoleName=role, PolicyArn=FULL_ACCESS)
    attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    equal([entry["PolicyArn"] for entry in attached], [FULL_ACCESS])
    sts = client("sts", keys(world.alt))
    arn = found["Arn"]
    sts.assume_role(RoleArn=arn, RoleSessionName="test")
    nobody = policy({"Effect": "Deny", "Principal": {"AWS": world.alt["number"]}, "Action": "sts:AssumeRole"})
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=nobody)
    refused(403, "AccessDenied", sts.assume_role, RoleArn=arn, RoleSessionName="test")
    refused(409, "DeleteConflict", iam.delete_role, RoleName=role)
    iam.detach_role_policy(RoleName=role, PolicyArn=FULL_ACCESS)
    iam.delete_role_policy(RoleName=role, PolicyName="all")
    iam.delete_role(RoleName=role)


@check
def everything_about_policies(world):
    iam, user = world.iam, name("user")
    iam.create_user(UserName=user)
    arn = iam.create_policy(PolicyName=name("policy"), PolicyDocument=policy(ALL))["Policy"]["Arn"]
    iam.attach_user_policy(UserName=user, PolicyArn=arn)
    equal([entry["UserName"] for entry in iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"]], [user])
    narrow = policy({"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"})
    second = iam.create_policy_version(PolicyArn=arn, PolicyDocument=narrow)["PolicyVersion"]["VersionId"]
    equal(iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"], "v1")
    iam.set_default_policy_version(PolicyArn=arn, VersionId=second)
    found = iam.get_policy_version(PolicyArn=arn, VersionId=second)["PolicyVersion"]
    equal((found["IsDefaultVersion"], found["Document"]["Statement"][0]["Action"]), (True, "s3:GetObject"))
    equal(sorted(entry["VersionId"] for entry in iam.list_policy_versions(PolicyArn=arn)["Versions"]), ["v1", "v2"])
    refused(409, "DeleteConflict", iam.delete_policy_version, PolicyArn=arn, VersionId=second)
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    assert arn in [entry["Arn"] for entry in iam.list_policies(Scope="Local")["Policies"]]
    refused(409, "DeleteConflict", iam.delete_policy, PolicyArn=arn)
    iam.detach_user_policy(UserName=user, PolicyArn=arn)
    iam.delete_policy(PolicyArn=arn)
    refused(404, "NoSuchEntity", iam.get_policy, PolicyArn=arn)
    iam.delete_user(UserName=user)


def fetch(url, **arguments):
    trust = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    try:
        return urllib.request.urlopen(urllib.request.Request(url, **arguments), context=trust)
    except urllib.error.HTTPError as error:
        return error


@check
def forms_store_what_their_policy_allows(world):
    """PostObject, as boto3 signs forms for it."""
    bucket = world.bucket("forms")
    s3 = client("s3", keys(world.demo), signature_version="s3v4")
    form = s3.generate_presigned_post(bucket, "up/${filename}", Conditions=[["content-length-range", 1, 100]])

    def post(content):
        parts = [f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in form["fields"].items()]
        parts.append('--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
        body = "".join(parts).encode() + content + b"\r\n--b--\r\n"
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        return fetch(form["url"], data=body, headers=kind, method="POST").status

    equal(post(b"content"), 204)
    equal(read(world.s3, bucket, "up/a"), b"content")
    equal(post(b"x" * 101), 400)
    form["fields"]["key"] = "elsewhere"
    equal(post(b"content"), 403)


@check
def cross_origin_rules(world):
    bucket = world.bucket("cors")
    refused(404, "NoSuchCORSConfiguration", world.s3.get_bucket_cors, Bucket=bucket)
    rule = {"AllowedOrigins": ["https://*.example.com"], "AllowedMethods": ["GET"], "ExposeHeaders": ["ETag"]}
    world.s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [rule]})
    equal(world.s3.get_bucket_cors(Bucket=bucket)["CORSRules"], [rule])
    url = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket}/k"
    asked = {"Origin": "https://a.example.com", "Access-Control-Request-Method": "GET"}
    answer = fetch(url, headers=asked, method="OPTIONS")
    equal((answer.status, answer.headers["Access-Control-Allow-Origin"]), (200, "https://a.example.com"))
    equal(fetch(url, headers=dict(asked, Origin="https://b.org"), method="OPTIONS").status, 403)
    world.s3.delete_bucket_cors(Bucket=bucket)
    equal(fetch(url, headers=asked, method="OPTIONS").status, 403)


def main(path, names):
    world = World(path)
    for function in CHECKS:
        if not names or function.__name__ in names:
            print(function.__name__, flush=True)
            function(world)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
