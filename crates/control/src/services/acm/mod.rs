//! AWS Certificate Manager: the certificates of HTTPS and TLS listeners.
//!
//! Certificates are imported, or asked for by their names. There is nobody here who could show a public authority that a
//! name is theirs, so that one that is asked for is signed with its own key: it is issued a moment later, by the server,
//! which has randomness for keys (see [`links::wanted`]), and anew before it ends. Clients have to be told to trust it.
//!
//! Private keys are stored sealed under the installation's key. They leave the control plane only towards balancers.

mod authorize;
mod check;
mod errors;
pub mod links;
mod ops;
pub mod state;
#[cfg(test)]
pub(crate) mod tests;
mod views;
mod x509;

pub use x509::{Facts, KeyAlgorithm, Unfit};

use crate::service::Service;
use gantry_api::acm;

pub static SERVICE: Service = Service {
    model: acm::SERVICE,
    operations: crate::operations! { acm;
        write AddTagsToCertificate => authorize::add_tags_to_certificate, ops::tag::add_tags_to_certificate;
        write DeleteCertificate => authorize::delete_certificate, ops::certificate::delete_certificate;
        read DescribeCertificate => authorize::describe_certificate, ops::certificate::describe_certificate;
        read GetCertificate => authorize::get_certificate, ops::certificate::get_certificate;
        write ImportCertificate => authorize::import_certificate, ops::import::import_certificate;
        read ListCertificates => authorize::list_certificates, ops::list::list_certificates;
        read ListTagsForCertificate => authorize::list_tags_for_certificate, ops::tag::list_tags_for_certificate;
        write RemoveTagsFromCertificate => authorize::remove_tags_from_certificate, ops::tag::remove_tags_from_certificate;
        write RequestCertificate => authorize::request_certificate, ops::request::request_certificate;
        write UpdateCertificateOptions => authorize::update_certificate_options, ops::certificate::update_certificate_options;
    },
    // What the model does not have, as ExportCertificate, is answered as an operation that does not exist.
    later: &[],
};
