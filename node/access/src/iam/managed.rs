//! Policies that AWS manages and tools attach by name. Those of services that are not here do not exist.

const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
const S3_FULL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*","s3-object-lambda:*"],"Resource":"*"}]}"#;
const S3_READ: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*","s3:List*","s3:Describe*"],"Resource":"*"}]}"#;
const IAM_FULL: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:*","Resource":"*"}]}"#;
const IAM_READ: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["iam:Get*","iam:List*"],"Resource":"*"}]}"#;
const READ_ONLY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:Get*","s3:List*","iam:Get*","iam:List*","sts:GetCallerIdentity"],"Resource":"*"}]}"#;
const POWER_USER: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":["iam:*","organizations:*","account:*"],"Resource":"*"}]}"#;

const MANAGED: &[(&str, &str)] = &[
    ("AdministratorAccess", ALL),
    ("AmazonS3FullAccess", S3_FULL),
    ("AmazonS3ReadOnlyAccess", S3_READ),
    ("IAMFullAccess", IAM_FULL),
    ("IAMReadOnlyAccess", IAM_READ),
    ("PowerUserAccess", POWER_USER),
    ("ReadOnlyAccess", READ_ONLY),
];

/// Name and document of `arn:aws:iam::aws:policy/NAME`.
#[must_use]
pub fn aws_managed(name: &str) -> Option<(&'static str, &'static str)> {
    MANAGED.iter().find(|(known, _)| *known == name).copied()
}

pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    MANAGED.iter().copied()
}
