//! What Systems Manager's operations ask of IAM.

use crate::call::Demand;
use gantry_api::ssm;
use gantry_decide::arn::Arn;
use gantry_decide::ids::Scope;

/// An authoriser for an operation whose action knows no resource.
macro_rules! on_all {
    ($($function:ident: $operation:ident;)*) => {$(
        pub fn $function(_: &<ssm::$operation as gantry_wire::Operation>::Request, _: &Scope) -> Demand {
            Demand::on_all(concat!("ssm:", stringify!($operation)))
        }
    )*};
}

on_all! {
    create_activation: CreateActivation;
    delete_activation: DeleteActivation;
    describe_activations: DescribeActivations;
    describe_instance_information: DescribeInstanceInformation;
}

pub fn resume_session(request: &ssm::ResumeSessionRequest, scope: &Scope) -> Demand {
    Demand::on("ssm:ResumeSession", arn(scope, format!("session/{}", request.session_id)))
}

pub fn deregister_managed_instance(request: &ssm::DeregisterManagedInstanceRequest, scope: &Scope) -> Demand {
    let machine = arn(scope, format!("managed-instance/{}", request.instance_id));
    Demand::on("ssm:DeregisterManagedInstance", machine)
}

fn arn(scope: &Scope, resource: String) -> Arn {
    let (region, account) = (scope.region.to_string(), scope.account.to_string());
    Arn { service: "ssm".to_owned(), region, account, resource }
}
