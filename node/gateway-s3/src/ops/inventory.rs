//! Inventory configurations of buckets: read, listed, put, removed. What they make is in [`crate::inventory`].

use holdfast_object::{api::ObjectError, versioned::DocumentKind};
use s3s::{
    S3Request, S3Response,
    dto::{
        DeleteBucketInventoryConfigurationInput, DeleteBucketInventoryConfigurationOutput,
        GetBucketInventoryConfigurationInput, GetBucketInventoryConfigurationOutput, InventoryConfiguration,
        InventoryDestination, InventoryEncryption, InventoryFilter, InventoryFormat, InventoryFrequency,
        InventoryIncludedObjectVersions, InventoryOptionalField, InventoryS3BucketDestination,
        InventorySchedule, ListBucketInventoryConfigurationsInput, ListBucketInventoryConfigurationsOutput,
        PutBucketInventoryConfigurationInput, PutBucketInventoryConfigurationOutput, SSES3,
    },
};

use crate::{
    errors::Refusal,
    inventory::{
        CONFIGURATIONS_MAX, CONFIGURATIONS_PAGE, Field, Frequency, ID_SIZE_MAX, Inventory, PREFIX_SIZE_MAX,
    },
    ops::documents,
    service::Context,
};

const BUCKET_ARN: &str = "arn:aws:s3:::";

fn invalid(name: &'static str, value: &str, said: &'static str) -> Refusal {
    Refusal::because("InvalidArgument", said).with("ArgumentName", name).with("ArgumentValue", value)
}

fn parse(given: InventoryConfiguration) -> Result<Inventory, Refusal> {
    let to = given.destination.s3_bucket_destination;
    let id_is_sound = given.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if given.id.is_empty() || given.id.len() > ID_SIZE_MAX || !id_is_sound {
        return Err(invalid(
            "Id",
            &given.id,
            "An id has 1 to 64 letters, digits, dots, dashes and underscores",
        ));
    }
    let Some(target) = to.bucket.strip_prefix(BUCKET_ARN).filter(|name| !name.is_empty()) else {
        return Err(Refusal::because("InvalidS3DestinationBucket", "Invalid bucket ARN"));
    };
    match to.format.as_str() {
        InventoryFormat::CSV => {}
        InventoryFormat::ORC | InventoryFormat::PARQUET => {
            return Err(Refusal::not_implemented("An inventory in a format other than CSV"));
        }
        _ => return Err(Refusal::new("MalformedXML")),
    }
    if to.encryption.as_ref().is_some_and(|encryption| encryption.ssekms.is_some()) {
        return Err(Refusal::not_implemented("An inventory under a named key"));
    }
    if to.prefix.as_ref().is_some_and(|prefix| prefix.len() > PREFIX_SIZE_MAX) {
        return Err(invalid("Prefix", "", "The prefix of the destination is longer than 512 bytes"));
    }
    let frequency = match given.schedule.frequency.as_str() {
        InventoryFrequency::DAILY => Frequency::Daily,
        InventoryFrequency::WEEKLY => Frequency::Weekly,
        _ => return Err(Refusal::new("MalformedXML")),
    };
    let all_versions = match given.included_object_versions.as_str() {
        InventoryIncludedObjectVersions::ALL => true,
        InventoryIncludedObjectVersions::CURRENT => false,
        _ => return Err(Refusal::new("MalformedXML")),
    };
    Ok(Inventory {
        enabled: given.is_enabled,
        target: target.to_owned(),
        account: to.account_id,
        prefix: to.prefix,
        sealed: to.encryption.is_some(),
        frequency,
        all_versions,
        filter: given.filter.map(|filter| filter.prefix),
        fields: fields(given.optional_fields.unwrap_or_default())?,
        id: given.id,
    })
}

fn fields(given: Vec<InventoryOptionalField>) -> Result<Vec<Field>, Refusal> {
    let mut fields = Vec::new();
    for name in given {
        match Field::ALL.into_iter().find(|field| field.name() == name.as_str()) {
            Some(field) if fields.contains(&field) => return Err(Refusal::new("MalformedXML")),
            Some(field) => fields.push(field),
            None if UNKEPT.contains(&name.as_str()) => {
                return Err(Refusal::not_implemented(&format!("{} in an inventory", name.as_str())));
            }
            None => return Err(Refusal::new("MalformedXML")),
        }
    }
    Ok(fields)
}

/// Columns of AWS that listings here do not know.
const UNKEPT: &[&str] = &[
    InventoryOptionalField::BUCKET_KEY_STATUS,
    InventoryOptionalField::ENCRYPTION_STATUS,
    InventoryOptionalField::INTELLIGENT_TIERING_ACCESS_TIER,
    InventoryOptionalField::OBJECT_ACCESS_CONTROL_LIST,
    InventoryOptionalField::OBJECT_LOCK_LEGAL_HOLD_STATUS,
    InventoryOptionalField::OBJECT_LOCK_MODE,
    InventoryOptionalField::OBJECT_LOCK_RETAIN_UNTIL_DATE,
    InventoryOptionalField::OBJECT_OWNER,
];

fn shown(inventory: Inventory) -> InventoryConfiguration {
    let frequency = match inventory.frequency {
        Frequency::Daily => InventoryFrequency::DAILY,
        Frequency::Weekly => InventoryFrequency::WEEKLY,
    };
    let versions = if inventory.all_versions {
        InventoryIncludedObjectVersions::ALL
    } else {
        InventoryIncludedObjectVersions::CURRENT
    };
    let named = |field: Field| InventoryOptionalField::from_static(field.name());
    InventoryConfiguration {
        destination: InventoryDestination {
            s3_bucket_destination: InventoryS3BucketDestination {
                account_id: inventory.account,
                bucket: format!("{BUCKET_ARN}{}", inventory.target),
                encryption: inventory
                    .sealed
                    .then_some(InventoryEncryption { ssekms: None, sses3: Some(SSES3 {}) }),
                format: InventoryFormat::from_static(InventoryFormat::CSV),
                prefix: inventory.prefix,
            },
        },
        filter: inventory.filter.map(|prefix| InventoryFilter { prefix }),
        id: inventory.id,
        included_object_versions: InventoryIncludedObjectVersions::from_static(versions),
        is_enabled: inventory.enabled,
        optional_fields: (!inventory.fields.is_empty())
            .then(|| inventory.fields.into_iter().map(named).collect()),
        schedule: InventorySchedule { frequency: InventoryFrequency::from_static(frequency) },
    }
}

fn read(body: &[u8]) -> Result<InventoryConfiguration, Refusal> {
    serde_json::from_slice(body).map(shown).map_err(|_| Refusal::new("InternalError"))
}

async fn load(cx: &Context, bucket: &str, id: &str) -> Result<InventoryConfiguration, Refusal> {
    match cx.objects.document(bucket, DocumentKind::Inventory, id).await {
        Ok(document) => read(&document.body),
        Err(ObjectError::NoSuchDocument) => Err(Refusal::new("NoSuchConfiguration")),
        Err(error) => Err(error.into()),
    }
}

pub(crate) async fn get(
    cx: Context,
    request: S3Request<GetBucketInventoryConfigurationInput>,
) -> Result<S3Response<GetBucketInventoryConfigurationOutput>, Refusal> {
    let found = load(&cx, &request.input.bucket, &request.input.id).await?;
    Ok(S3Response::new(GetBucketInventoryConfigurationOutput { inventory_configuration: Some(found) }))
}

/// In the order of ids; the token is the last id of the page before.
pub(crate) async fn list(
    cx: Context,
    request: S3Request<ListBucketInventoryConfigurationsInput>,
) -> Result<S3Response<ListBucketInventoryConfigurationsOutput>, Refusal> {
    let input = request.input;
    let after = input.continuation_token.as_deref().unwrap_or_default();
    let mut documents = cx.objects.documents(&input.bucket, DocumentKind::Inventory).await?;
    documents.sort_by(|one, other| one.id.cmp(&other.id));
    documents.retain(|document| document.id.as_str() > after);
    let more = documents.len() > CONFIGURATIONS_PAGE;
    documents.truncate(CONFIGURATIONS_PAGE);
    let next = documents.last().filter(|_| more).map(|document| document.id.clone());
    let found = documents.iter().map(|document| read(&document.body)).collect::<Result<Vec<_>, _>>()?;
    Ok(S3Response::new(ListBucketInventoryConfigurationsOutput {
        continuation_token: input.continuation_token,
        inventory_configuration_list: (!found.is_empty()).then_some(found),
        is_truncated: Some(more),
        next_continuation_token: next,
    }))
}

pub(crate) async fn put(
    cx: Context,
    request: S3Request<PutBucketInventoryConfigurationInput>,
) -> Result<S3Response<PutBucketInventoryConfigurationOutput>, Refusal> {
    let input = request.input;
    let inventory = parse(input.inventory_configuration)?;
    if inventory.id != input.id {
        return Err(invalid("Id", &input.id, "The id of the request is not that of the configuration"));
    }
    check_target(&cx, &inventory).await?;
    let there = cx.objects.documents(&input.bucket, DocumentKind::Inventory).await?;
    if there.len() >= CONFIGURATIONS_MAX && !there.iter().any(|document| document.id == inventory.id) {
        return Err(Refusal::new("TooManyConfigurations"));
    }
    let body = serde_json::to_vec(&inventory).map_err(|_| Refusal::new("InternalError"))?;
    documents::store_as(&cx, &input.bucket, (DocumentKind::Inventory, &inventory.id), Some(body.into()))
        .await?;
    Ok(S3Response::new(PutBucketInventoryConfigurationOutput {}))
}

pub(crate) async fn delete(
    cx: Context,
    request: S3Request<DeleteBucketInventoryConfigurationInput>,
) -> Result<S3Response<DeleteBucketInventoryConfigurationOutput>, Refusal> {
    let (bucket, id) = (&request.input.bucket, &request.input.id);
    load(&cx, bucket, id).await?;
    documents::store_as(&cx, bucket, (DocumentKind::Inventory, id), None).await?;
    Ok(S3Response::new(DeleteBucketInventoryConfigurationOutput {}))
}

/// A bucket takes the inventories of its owner's buckets, if whoever asks may write there.
async fn check_target(cx: &Context, inventory: &Inventory) -> Result<(), Refusal> {
    let invalid = |said: &'static str| Err(Refusal::because("InvalidS3DestinationBucket", said));
    let access = cx.call.access()?;
    let prefix = format!("{}/", inventory.prefix.as_deref().unwrap_or_default());
    let target =
        match access.check_target(&*cx.objects, &inventory.target, prefix.trim_start_matches('/')).await {
            Ok(target) => target,
            Err(refusal) if refusal.code == "NoSuchBucket" => {
                return invalid("The destination bucket does not exist");
            }
            Err(refusal) => return Err(refusal),
        };
    if target.owner.canonical != access.bucket()?.owner.canonical {
        return invalid("The owner of the bucket and of the destination bucket must be the same");
    }
    if inventory.account.as_ref().is_some_and(|account| *account != target.owner.number.to_string()) {
        return invalid("The destination bucket belongs to another account than the one named");
    }
    if target.requester_pays {
        return invalid("The destination bucket must not have Requester Pays enabled");
    }
    Ok(())
}
