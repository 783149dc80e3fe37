//! STS, the Security Token Service: who am I. Credentials for tasks' roles come from
//! [`crate::roles`]; those that users ask for join with IAM.

mod authorize;
mod ops;
#[cfg(test)]
mod tests;

use crate::service::Service;
use gantry_api::sts;

pub static SERVICE: Service = Service {
    model: sts::SERVICE,
    operations: crate::operations! { sts;
        read GetCallerIdentity => authorize::get_caller_identity, ops::identity::get_caller_identity;
    },
    later: &[
        "AssumeRole",
        "AssumeRoleWithSAML",
        "AssumeRoleWithWebIdentity",
        "AssumeRoot",
        "DecodeAuthorizationMessage",
        "GetAccessKeyInfo",
        "GetDelegatedAccessToken",
        "GetFederationToken",
        "GetSessionToken",
        "GetWebIdentityToken",
    ],
};
