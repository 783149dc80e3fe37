//! Scripts: calls in, replies out.
#![allow(clippy::unwrap_used)]

use super::ops::identity::get_caller_identity;
use crate::call::{Call, Caller, Principal};
use crate::state::ScopeState;
use crate::tx::View;
use gantry_api::sts;
use gantry_decide::ids::{AccountId, RequestId, Scope};
use gantry_decide::random::Seeded;
use gantry_decide::time::Timestamp;

fn identity_of(principal: Principal) -> (String, String, String) {
    let scope = Scope { account: AccountId::DEFAULT, region: "eu-north-1".parse().unwrap() };
    let caller = Caller { scope: scope.clone(), principal, access_key_id: "AKIAEXAMPLE".to_owned() };
    let call = Call { caller, request_id: RequestId::random(&mut Seeded::new(1)), endpoint: String::new() };
    let state = ScopeState::default();
    let view = View { scope: &scope, state: &state, now: Timestamp::EPOCH };
    let reply = get_caller_identity(view, &call, sts::GetCallerIdentityRequest::default()).unwrap();
    (reply.user_id.unwrap(), reply.account.unwrap(), reply.arn.unwrap())
}

#[test]
fn the_account_is_its_own_user() {
    let (user_id, account, arn) = identity_of(Principal::Root);
    assert_eq!((user_id.as_str(), account.as_str()), ("123456789012", "123456789012"));
    assert_eq!(arn, "arn:aws:iam::123456789012:root");
}

#[test]
fn an_agent_is_known_by_its_key() {
    let (user_id, _, arn) = identity_of(Principal::Agent);
    assert_eq!(user_id, "AKIAEXAMPLE");
    assert_eq!(arn, "arn:aws:iam::123456789012:user/gantry-agent");
}
