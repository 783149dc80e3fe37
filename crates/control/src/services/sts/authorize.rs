//! What STS's operations ask of IAM.

use crate::call::Demand;
use gantry_api::sts;
use gantry_decide::ids::Scope;

/// AWS lets everybody ask, whatever their policies say; so does `permit` for every kind of caller.
pub fn get_caller_identity(_: &sts::GetCallerIdentityRequest, _: &Scope) -> Demand {
    Demand::on_all("sts:GetCallerIdentity")
}
