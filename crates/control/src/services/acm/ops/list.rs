//! Lists of certificates.

use crate::call::Call;
use crate::page::Page;
use crate::services::acm::errors::AcmError;
use crate::services::acm::state::Certificate;
use crate::services::acm::views;
use crate::tx::View;
use gantry_api::acm;

/// Items of one page at most, and by default.
const PAGE_MAX: i32 = 1000;
const PAGE: i32 = 100;
/// What is listed when no kinds of keys are named, as Certificate Manager documents.
const USUAL_KEYS: &[acm::KeyAlgorithm] = &[acm::KeyAlgorithm::Rsa1024, acm::KeyAlgorithm::Rsa2048];

/// Whether a request asks for a certificate that is shown so.
fn matches(request: &acm::ListCertificatesRequest, shown: &acm::CertificateSummary) -> bool {
    fn one_of<T: PartialEq>(wanted: Option<&[T]>, has: Option<&T>) -> bool {
        wanted.is_none_or(|wanted| has.is_some_and(|has| wanted.contains(has)))
    }
    fn any_of<T: PartialEq>(wanted: Option<&[T]>, has: Option<&[T]>) -> bool {
        wanted.is_none_or(|wanted| has.unwrap_or_default().iter().any(|has| wanted.contains(has)))
    }
    let includes = request.includes.as_ref();
    let keys = includes.and_then(|includes| includes.key_types.as_deref()).unwrap_or(USUAL_KEYS);
    let usages = includes.and_then(|includes| includes.key_usage.as_deref());
    let purposes = includes.and_then(|includes| includes.extended_key_usage.as_deref());
    let exportable = includes.and_then(|includes| includes.export_option);
    let managed = includes.and_then(|includes| includes.managed_by);
    one_of(request.certificate_statuses.as_deref(), shown.status.as_ref())
        && one_of(request.certificate_key_pair_origins.as_deref(), shown.certificate_key_pair_origin.as_ref())
        && one_of(Some(keys), shown.key_algorithm.as_ref())
        && any_of(usages, shown.key_usages.as_deref())
        && any_of(purposes, shown.extended_key_usages.as_deref())
        && exportable.is_none_or(|exportable| shown.export_option == Some(exportable))
        && managed.is_none_or(|managed| shown.managed_by == Some(managed))
}

pub fn list_certificates(
    view: View<'_>,
    _call: &Call,
    request: acm::ListCertificatesRequest,
) -> Result<acm::ListCertificatesResponse, AcmError> {
    if request.sort_by.is_some() != request.sort_order.is_some() {
        let message = "SortBy and SortOrder must be specified together.";
        return Err(AcmError::validation(message));
    }
    let descending = request.sort_order == Some(acm::SortOrder::Descending);
    let page = Page::read(request.next_token.as_deref(), request.max_items, PAGE_MAX, PAGE)?;
    let page = page.descending(descending);
    let key =
        |certificate: &Certificate| format!("{:020}/{}", certificate.created_at.as_millis(), certificate.id);
    let mut found: Vec<(String, acm::CertificateSummary)> = view
        .state
        .acm
        .certificates
        .values()
        .map(|certificate| (key(certificate), views::summary(view, certificate)))
        .filter(|(_, shown)| matches(&request, shown))
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    if descending {
        found.reverse();
    }
    let (shown, next_token) = page.cut(found.into_iter(), |(key, _)| key.clone(), |(_, shown)| shown);
    Ok(acm::ListCertificatesResponse { certificate_summary_list: Some(shown), next_token })
}
