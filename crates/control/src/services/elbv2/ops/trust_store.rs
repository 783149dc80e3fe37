//! Trust stores. What they are made of is fetched from S3 before the state is changed.

use crate::call::Call;
use crate::fetch::{Fetch, Found, ObjectError, ObjectName};
use crate::services::elbv2::errors::{Elbv2Error, Kind, Limit, shortened};
use crate::services::elbv2::ops::attribute::is_bucket;
use crate::services::elbv2::state::{Authorities, Revocations, TrustStore};
use crate::services::elbv2::{check, links, pem, views};
use crate::tx::{Tx, View};
use gantry_api::elbv2;
use gantry_decide::ids::{BalancingName, TrustStoreId};
use gantry_wire::Structure;
use std::collections::BTreeSet;

/// Trust stores of an account, and files of revocation lists of one: AWS's quotas.
pub const TRUST_STORES_MAX: usize = 20;
const REVOCATION_FILES_MAX: usize = 30;
/// Bytes of all files of one: some 25,000 entries, which every balancer holds in memory. AWS's quota are 500,000.
const REVOCATION_BYTES_MAX: usize = 1 << 20;

/// A write of what was fetched, after the objects' names were checked.
fn fetch<R: Structure + Send + 'static>(
    objects: Vec<ObjectName>,
    write: impl FnOnce(&mut Tx<'_>, Vec<Found>) -> Result<R, Elbv2Error> + Send + 'static,
) -> Fetch {
    Fetch {
        objects,
        write: Box::new(move |tx, found| match write(tx, found) {
            Ok(response) => Ok(Box::new(response)),
            Err(error) => Err(error.into()),
        }),
    }
}

/// The name of an object; None where no object can have it.
fn object(bucket: &str, key: &str, version: Option<String>) -> Option<ObjectName> {
    let version = version.filter(|version| !version.is_empty());
    let named = is_bucket(bucket) && (1..=KEY_LENGTH_MAX).contains(&key.len());
    named.then(|| ObjectName { bucket: bucket.to_owned(), key: key.to_owned(), version })
}

/// Bytes of an object's key: S3's limit.
const KEY_LENGTH_MAX: usize = 1024;

fn bundle(bucket: &str, key: &str, version: Option<String>) -> Result<ObjectName, Elbv2Error> {
    object(bucket, key, version).ok_or_else(|| {
        let named = shortened(&format!("s3://{bucket}/{key}"));
        Elbv2Error::BundleNotFound(format!("'{named}' is not a valid object name"))
    })
}

fn authorities(found: Vec<Found>) -> Result<Authorities, Elbv2Error> {
    let found = found.into_iter().next().unwrap_or_else(|| Err(ObjectError::Missing(String::new())));
    let bytes = found.map_err(|error| match error {
        ObjectError::Missing(why) => Elbv2Error::BundleNotFound(why),
        large @ ObjectError::TooLarge(_) => Elbv2Error::InvalidBundle(large.to_string()),
    })?;
    pem::authorities(&bytes).map_err(|unfit| Elbv2Error::InvalidBundle(unfit.to_string()))
}

fn check_new(view: View<'_>, name: &BalancingName) -> Result<(), Elbv2Error> {
    let stores = &view.state.elbv2.trust_stores;
    if stores.values().any(|store| store.id.name == *name) {
        return Err(Elbv2Error::DuplicateTrustStoreName(name.to_string()));
    }
    if stores.len() >= TRUST_STORES_MAX { Err(Elbv2Error::TooMany(Limit::TrustStores)) } else { Ok(()) }
}

pub fn create_trust_store(
    view: View<'_>,
    _call: &Call,
    request: elbv2::CreateTrustStoreInput,
) -> Result<Fetch, Elbv2Error> {
    let name = check::name(Kind::TrustStore, &request.name)?;
    let tags = check::tags(request.tags.as_deref())?;
    check_new(view, &name)?;
    let (bucket, key) = (&request.ca_certificates_bundle_s3_bucket, &request.ca_certificates_bundle_s3_key);
    let bundle = bundle(bucket, key, request.ca_certificates_bundle_s3_object_version)?;
    Ok(fetch(vec![bundle], move |tx, found| {
        check_new(tx.view(), &name)?;
        let store = TrustStore {
            id: TrustStoreId::random(name, tx.random),
            authorities: authorities(found)?,
            revocations: Default::default(),
            last_revocation: 0,
            changed_at: tx.now,
            tags,
        };
        let trust_stores = Some(vec![views::trust_store(tx.scope, &store)]);
        tx.state.elbv2.trust_stores.put(store);
        Ok(elbv2::CreateTrustStoreOutput { trust_stores })
    }))
}

/// Puts another bundle in the place of the one that it has.
pub fn modify_trust_store(
    view: View<'_>,
    _call: &Call,
    request: elbv2::ModifyTrustStoreInput,
) -> Result<Fetch, Elbv2Error> {
    let arn = request.trust_store_arn;
    check::trust_store(view, &arn)?;
    let (bucket, key) = (&request.ca_certificates_bundle_s3_bucket, &request.ca_certificates_bundle_s3_key);
    let bundle = bundle(bucket, key, request.ca_certificates_bundle_s3_object_version)?;
    Ok(fetch(vec![bundle], move |tx, found| {
        let mut store = check::trust_store(tx.view(), &arn)?.clone();
        store.authorities = authorities(found)?;
        store.touch(tx.now);
        let trust_stores = Some(vec![views::trust_store(tx.scope, &store)]);
        tx.state.elbv2.trust_stores.put(store);
        Ok(elbv2::ModifyTrustStoreOutput { trust_stores })
    }))
}

pub fn delete_trust_store(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::DeleteTrustStoreInput,
) -> Result<elbv2::DeleteTrustStoreOutput, Elbv2Error> {
    let view = tx.view();
    let id = check::trust_store(view, &request.trust_store_arn)?.id.clone();
    if !links::users_of_trust_store(view, &id).is_empty() {
        return Err(Elbv2Error::TrustStoreInUse(request.trust_store_arn));
    }
    tx.state.elbv2.trust_stores.remove(&id);
    Ok(elbv2::DeleteTrustStoreOutput::default())
}

pub fn describe_trust_stores(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeTrustStoresInput,
) -> Result<elbv2::DescribeTrustStoresOutput, Elbv2Error> {
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let (arns, names) = (request.trust_store_arns.unwrap_or_default(), request.names.unwrap_or_default());
    let stores = &view.state.elbv2.trust_stores;
    let mut found: Vec<&TrustStore> = Vec::new();
    match (arns.as_slice(), names.as_slice()) {
        ([], []) => found.extend(stores.values().map(AsRef::as_ref)),
        (arns, []) => {
            for arn in arns {
                found.push(check::trust_store(view, arn)?);
            }
        }
        ([], names) => {
            for name in names {
                let named = stores.values().find(|store| store.id.name.as_str() == name);
                found.push(named.ok_or(Elbv2Error::TrustStoreNotFound)?);
            }
        }
        _ => {
            let message = "You must specify either trust store ARNs or trust store names";
            return Err(Elbv2Error::validation(message));
        }
    }
    found.sort_by_cached_key(|store| store.id.to_string());
    found.dedup_by(|one, other| one.id == other.id);
    let show = |store: &TrustStore| views::trust_store(view.scope, store);
    let (shown, next_marker) = page.cut(found.into_iter(), |store| store.id.to_string(), show);
    Ok(elbv2::DescribeTrustStoresOutput { trust_stores: Some(shown), next_marker })
}

pub fn describe_trust_store_associations(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeTrustStoreAssociationsInput,
) -> Result<elbv2::DescribeTrustStoreAssociationsOutput, Elbv2Error> {
    let store = check::trust_store(view, &request.trust_store_arn)?;
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let users = links::users_of_trust_store(view, &store.id);
    let show = |arn: String| elbv2::TrustStoreAssociation { resource_arn: Some(arn) };
    let (shown, next_marker) = page.cut(users.into_iter(), String::clone, show);
    Ok(elbv2::DescribeTrustStoreAssociationsOutput { trust_store_associations: Some(shown), next_marker })
}

/// Ends the use of a trust store that another account shares. Nobody does: each is its own account's.
pub fn delete_shared_trust_store_association(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::DeleteSharedTrustStoreAssociationInput,
) -> Result<elbv2::DeleteSharedTrustStoreAssociationOutput, Elbv2Error> {
    let view = tx.view();
    let store = check::trust_store(view, &request.trust_store_arn)?;
    if links::users_of_trust_store(view, &store.id).contains(&request.resource_arn) {
        Err(Elbv2Error::AssociationOfSameAccount(shortened(&request.resource_arn)))
    } else {
        Err(Elbv2Error::AssociationNotFound(shortened(&request.resource_arn)))
    }
}

pub fn get_trust_store_ca_certificates_bundle(
    view: View<'_>,
    call: &Call,
    request: elbv2::GetTrustStoreCaCertificatesBundleInput,
) -> Result<elbv2::GetTrustStoreCaCertificatesBundleOutput, Elbv2Error> {
    let store = check::trust_store(view, &request.trust_store_arn)?;
    let location = Some(links::location(view, &call.endpoint, &store.id, None));
    Ok(elbv2::GetTrustStoreCaCertificatesBundleOutput { location })
}

/// # Errors
/// For one that it does not have.
fn revocations(store: &TrustStore, id: i64) -> Result<&Revocations, Elbv2Error> {
    store.revocations.get(&id).ok_or(Elbv2Error::RevocationIdNotFound(id))
}

pub fn get_trust_store_revocation_content(
    view: View<'_>,
    call: &Call,
    request: elbv2::GetTrustStoreRevocationContentInput,
) -> Result<elbv2::GetTrustStoreRevocationContentOutput, Elbv2Error> {
    let store = check::trust_store(view, &request.trust_store_arn)?;
    revocations(store, request.revocation_id)?;
    let location = Some(links::location(view, &call.endpoint, &store.id, Some(request.revocation_id)));
    Ok(elbv2::GetTrustStoreRevocationContentOutput { location })
}

pub fn add_trust_store_revocations(
    view: View<'_>,
    _call: &Call,
    request: elbv2::AddTrustStoreRevocationsInput,
) -> Result<Fetch, Elbv2Error> {
    let arn = request.trust_store_arn;
    let store = check::trust_store(view, &arn)?;
    let given = request.revocation_contents.unwrap_or_default();
    if given.is_empty() {
        return Err(Elbv2Error::validation("A revocation file must be specified"));
    }
    if store.revocations.len() + given.len() > REVOCATION_FILES_MAX {
        return Err(Elbv2Error::TooMany(Limit::Revocations));
    }
    let named = given.into_iter().map(|given| {
        let (bucket, key) = (given.s3_bucket.unwrap_or_default(), given.s3_key.unwrap_or_default());
        object(&bucket, &key, given.s3_object_version).ok_or_else(|| {
            let named = shortened(&format!("s3://{bucket}/{key}"));
            Elbv2Error::RevocationContentNotFound(format!("'{named}' is not a valid object name"))
        })
    });
    Ok(fetch(named.collect::<Result<_, _>>()?, move |tx, found| {
        let mut store = check::trust_store(tx.view(), &arn)?.clone();
        let mut added = Vec::new();
        for found in found {
            let bytes = found.map_err(|error| match error {
                ObjectError::Missing(why) => Elbv2Error::RevocationContentNotFound(why),
                ObjectError::TooLarge(_) => Elbv2Error::TooMany(Limit::Revocations),
            })?;
            let file = pem::revocations(&bytes)
                .map_err(|unfit| Elbv2Error::InvalidRevocationContent(unfit.to_string()))?;
            added.push(store.add(file));
        }
        let bytes: usize = store.revocations.values().map(|file| file.pem.len()).sum();
        if store.revocations.len() > REVOCATION_FILES_MAX || bytes > REVOCATION_BYTES_MAX {
            return Err(Elbv2Error::TooMany(Limit::Revocations));
        }
        store.touch(tx.now);
        let show =
            |id: &i64| revocations(&store, *id).map(|file| views::revocation(tx.scope, &store, *id, file));
        let trust_store_revocations = Some(added.iter().map(show).collect::<Result<_, _>>()?);
        tx.state.elbv2.trust_stores.put(store);
        Ok(elbv2::AddTrustStoreRevocationsOutput { trust_store_revocations })
    }))
}

pub fn remove_trust_store_revocations(
    tx: &mut Tx<'_>,
    _call: &Call,
    request: elbv2::RemoveTrustStoreRevocationsInput,
) -> Result<elbv2::RemoveTrustStoreRevocationsOutput, Elbv2Error> {
    let mut store = check::trust_store(tx.view(), &request.trust_store_arn)?.clone();
    for id in request.revocation_ids.iter().collect::<BTreeSet<_>>() {
        store.revocations.remove(id).ok_or(Elbv2Error::RevocationIdNotFound(*id))?;
    }
    store.touch(tx.now);
    tx.state.elbv2.trust_stores.put(store);
    Ok(elbv2::RemoveTrustStoreRevocationsOutput::default())
}

pub fn describe_trust_store_revocations(
    view: View<'_>,
    _call: &Call,
    request: elbv2::DescribeTrustStoreRevocationsInput,
) -> Result<elbv2::DescribeTrustStoreRevocationsOutput, Elbv2Error> {
    let store = check::trust_store(view, &request.trust_store_arn)?;
    let page = check::page(request.marker.as_deref(), request.page_size)?;
    let mut found = Vec::new();
    match request.revocation_ids.filter(|ids| !ids.is_empty()) {
        Some(ids) => {
            for id in ids.into_iter().collect::<BTreeSet<_>>() {
                found.push((id, revocations(store, id)?));
            }
        }
        None => found.extend(store.revocations.iter().map(|(id, file)| (*id, file))),
    }
    let place = |(id, _): &(i64, &Revocations)| format!("{id:020}");
    let show = |(id, file): (i64, &Revocations)| {
        let shown = views::revocation(view.scope, store, id, file);
        elbv2::DescribeTrustStoreRevocation {
            trust_store_arn: shown.trust_store_arn,
            revocation_id: shown.revocation_id,
            revocation_type: shown.revocation_type,
            number_of_revoked_entries: shown.number_of_revoked_entries,
        }
    };
    let (shown, next_marker) = page.cut(found.into_iter(), place, show);
    Ok(elbv2::DescribeTrustStoreRevocationsOutput { trust_store_revocations: Some(shown), next_marker })
}
