//! What Certificate Manager's operations ask of IAM.

use crate::call::Demand;
use gantry_api::acm;
use gantry_decide::ids::Scope;

pub fn list_certificates(_: &acm::ListCertificatesRequest, _: &Scope) -> Demand {
    Demand::on_all("acm:ListCertificates")
}

pub fn request_certificate(_: &acm::RequestCertificateRequest, scope: &Scope) -> Demand {
    Demand::on("acm:RequestCertificate", any(scope))
}

pub fn import_certificate(request: &acm::ImportCertificateRequest, scope: &Scope) -> Demand {
    let again = request.certificate_arn.clone();
    Demand::on("acm:ImportCertificate", again.unwrap_or_else(|| any(scope)))
}

/// Of what has no id yet: a pattern.
fn any(scope: &Scope) -> String {
    format!("arn:aws:acm:{}:{}:certificate/*", scope.region, scope.account)
}

/// Operations on the certificate whose ARN a request carries.
macro_rules! on_arn {
    ($($name:ident $request:ident $action:literal;)*) => {$(
        pub fn $name(request: &acm::$request, _: &Scope) -> Demand {
            Demand::on(concat!("acm:", $action), &request.certificate_arn)
        }
    )*};
}

on_arn! {
    add_tags_to_certificate AddTagsToCertificateRequest "AddTagsToCertificate";
    delete_certificate DeleteCertificateRequest "DeleteCertificate";
    describe_certificate DescribeCertificateRequest "DescribeCertificate";
    get_certificate GetCertificateRequest "GetCertificate";
    list_tags_for_certificate ListTagsForCertificateRequest "ListTagsForCertificate";
    remove_tags_from_certificate RemoveTagsFromCertificateRequest "RemoveTagsFromCertificate";
    update_certificate_options UpdateCertificateOptionsRequest "UpdateCertificateOptions";
}
