//! The errors that Elastic Load Balancing answers, with AWS's codes and words. Clients look for these texts.

use crate::page::PageError;
use gantry_decide::ids::SubnetId;
use gantry_wire::ApiError;

/// What may not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    LoadBalancer,
    Listener,
    Rule,
    TargetGroup,
    TrustStore,
}

impl Kind {
    /// The kind in AWS's sentences.
    pub fn noun(self) -> &'static str {
        match self {
            Kind::LoadBalancer => "load balancer",
            Kind::Listener => "listener",
            Kind::Rule => "listener rule",
            Kind::TargetGroup => "target group",
            Kind::TrustStore => "trust store",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Elbv2Error {
    #[error("{0}")]
    Validation(String),
    #[error("Load balancers '[{0}]' not found")]
    LoadBalancerNotFound(String),
    #[error("One or more listeners not found")]
    ListenerNotFound,
    #[error("One or more rules not found")]
    RuleNotFound,
    #[error("One or more target groups not found")]
    TargetGroupNotFound,
    #[error("One or more trust stores not found")]
    TrustStoreNotFound,
    #[error("A load balancer with the same name '{0}' exists, but with different settings")]
    DuplicateLoadBalancerName(String),
    #[error("A target group with the same name '{0}' exists, but with different settings")]
    DuplicateTargetGroupName(String),
    #[error("A trust store with the same name '{0}' already exists")]
    DuplicateTrustStoreName(String),
    #[error("A listener already exists on this port for this load balancer '{0}'")]
    DuplicateListener(String),
    #[error("Priority '{0}' is currently in use")]
    PriorityInUse(u32),
    #[error("{0}")]
    ResourceInUse(String),
    #[error("{0}")]
    NotPermitted(String),
    #[error("The following target groups cannot be associated with more than one load balancer: {0}")]
    AssociationLimit(String),
    #[error(
        "The listener and its associated target group '{group}' have incompatible protocols: '{listener}' and \
         '{protocol}'"
    )]
    IncompatibleProtocols { group: String, listener: &'static str, protocol: &'static str },
    #[error("{0}")]
    InvalidConfiguration(String),
    #[error("{0}")]
    InvalidAction(String),
    #[error("The subnet ID '{0}' is not valid")]
    InvalidSubnet(String),
    #[error("Not enough IP space available in {0}: every address of the load balancers' pool {1} is taken")]
    NoAddress(SubnetId, String),
    #[error("Security group '{0}' is not valid")]
    InvalidSecurityGroup(String),
    #[error("{0}")]
    InvalidTarget(String),
    #[error("{0}")]
    UnsupportedProtocol(String),
    #[error("Certificate '{0}' not found")]
    CertificateNotFound(String),
    #[error("SSL policy '{0}' not found")]
    SslPolicyNotFound(String),
    #[error("The ALPN policy '{0}' is not supported")]
    AlpnPolicyNotSupported(String),
    #[error("Trust store '{0}' is currently in use by a listener")]
    TrustStoreInUse(String),
    #[error("The CA certificates bundle cannot be found: {0}")]
    BundleNotFound(String),
    #[error("The CA certificates bundle is not valid: {0}")]
    InvalidBundle(String),
    #[error("The revocation file cannot be found: {0}")]
    RevocationContentNotFound(String),
    #[error("The revocation file is not valid: {0}")]
    InvalidRevocationContent(String),
    #[error("Revocation ID '{0}' not found")]
    RevocationIdNotFound(i64),
    #[error("The association with '{0}' is within the trust store's own account")]
    AssociationOfSameAccount(String),
    #[error("The trust store is not associated with '{0}'")]
    AssociationNotFound(String),
    #[error("The tag key '{0}' is specified more than once")]
    DuplicateTagKeys(String),
    #[error("The maximum number of {0} has been reached")]
    TooMany(Limit),
}

/// What there is a most of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    LoadBalancers,
    Listeners,
    Rules,
    TargetGroups,
    GroupsOfAction,
    Targets,
    Certificates,
    Tags,
    Actions,
    TrustStores,
    Revocations,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::LoadBalancers => "load balancers",
            Limit::Listeners => "listeners per load balancer",
            Limit::Rules => "rules per load balancer",
            Limit::TargetGroups => "target groups",
            Limit::GroupsOfAction => "target groups per action",
            Limit::Targets => "targets per target group",
            Limit::Certificates => "certificates per load balancer",
            Limit::Tags => "tags for a resource",
            Limit::Actions => "actions per rule",
            Limit::TrustStores => "trust stores",
            Limit::Revocations => "revocation files or entries per trust store",
        })
    }
}

impl Elbv2Error {
    pub fn validation(message: impl Into<String>) -> Elbv2Error {
        Elbv2Error::Validation(message.into())
    }

    pub fn configuration(message: impl Into<String>) -> Elbv2Error {
        Elbv2Error::InvalidConfiguration(message.into())
    }

    /// Nothing of that name or ARN.
    pub fn not_found(kind: Kind, named: &str) -> Elbv2Error {
        match kind {
            Kind::LoadBalancer => Elbv2Error::LoadBalancerNotFound(shortened(named)),
            Kind::Listener => Elbv2Error::ListenerNotFound,
            Kind::Rule => Elbv2Error::RuleNotFound,
            Kind::TargetGroup => Elbv2Error::TargetGroupNotFound,
            Kind::TrustStore => Elbv2Error::TrustStoreNotFound,
        }
    }

    /// AWS's code.
    pub fn code(&self) -> &'static str {
        match self {
            Elbv2Error::Validation(_) => "ValidationError",
            Elbv2Error::LoadBalancerNotFound(_) => "LoadBalancerNotFound",
            Elbv2Error::ListenerNotFound => "ListenerNotFound",
            Elbv2Error::RuleNotFound => "RuleNotFound",
            Elbv2Error::TargetGroupNotFound => "TargetGroupNotFound",
            Elbv2Error::TrustStoreNotFound => "TrustStoreNotFound",
            Elbv2Error::DuplicateTrustStoreName(_) => "DuplicateTrustStoreName",
            Elbv2Error::TrustStoreInUse(_) => "TrustStoreInUse",
            Elbv2Error::BundleNotFound(_) => "CaCertificatesBundleNotFound",
            Elbv2Error::InvalidBundle(_) => "InvalidCaCertificatesBundle",
            Elbv2Error::RevocationContentNotFound(_) => "RevocationContentNotFound",
            Elbv2Error::InvalidRevocationContent(_) => "InvalidRevocationContent",
            Elbv2Error::RevocationIdNotFound(_) => "RevocationIdNotFound",
            Elbv2Error::AssociationOfSameAccount(_) => "DeleteAssociationSameAccount",
            Elbv2Error::AssociationNotFound(_) => "AssociationNotFound",
            Elbv2Error::DuplicateLoadBalancerName(_) => "DuplicateLoadBalancerName",
            Elbv2Error::DuplicateTargetGroupName(_) => "DuplicateTargetGroupName",
            Elbv2Error::DuplicateListener(_) => "DuplicateListener",
            Elbv2Error::PriorityInUse(_) => "PriorityInUse",
            Elbv2Error::ResourceInUse(_) => "ResourceInUse",
            Elbv2Error::NotPermitted(_) => "OperationNotPermitted",
            Elbv2Error::AssociationLimit(_) => "TargetGroupAssociationLimit",
            Elbv2Error::IncompatibleProtocols { .. } => "IncompatibleProtocols",
            Elbv2Error::InvalidConfiguration(_) => "InvalidConfigurationRequest",
            Elbv2Error::InvalidAction(_) => "InvalidLoadBalancerAction",
            Elbv2Error::InvalidSubnet(_) => "SubnetNotFound",
            Elbv2Error::NoAddress(..) => "InvalidSubnet",
            Elbv2Error::InvalidSecurityGroup(_) => "InvalidSecurityGroup",
            Elbv2Error::InvalidTarget(_) => "InvalidTarget",
            Elbv2Error::UnsupportedProtocol(_) => "UnsupportedProtocol",
            Elbv2Error::CertificateNotFound(_) => "CertificateNotFound",
            Elbv2Error::SslPolicyNotFound(_) => "SSLPolicyNotFound",
            Elbv2Error::AlpnPolicyNotSupported(_) => "ALPNPolicyNotFound",
            Elbv2Error::DuplicateTagKeys(_) => "DuplicateTagKeys",
            Elbv2Error::TooMany(limit) => match limit {
                Limit::LoadBalancers => "TooManyLoadBalancers",
                Limit::Listeners => "TooManyListeners",
                Limit::Rules => "TooManyRules",
                Limit::TargetGroups | Limit::GroupsOfAction => "TooManyTargetGroups",
                Limit::Targets => "TooManyTargets",
                Limit::Certificates => "TooManyCertificates",
                Limit::Tags => "TooManyTags",
                Limit::Actions => "TooManyActions",
                Limit::TrustStores => "TooManyTrustStores",
                Limit::Revocations => "TooManyTrustStoreRevocationEntries",
            },
        }
    }
}

/// A request's text as an error repeats it.
pub fn shortened(text: &str) -> String {
    text.chars().take(256).collect()
}

impl From<Elbv2Error> for ApiError {
    fn from(error: Elbv2Error) -> ApiError {
        ApiError::new(error.code(), error.to_string())
    }
}

impl From<PageError> for Elbv2Error {
    fn from(error: PageError) -> Elbv2Error {
        match error {
            PageError::Token => Elbv2Error::validation("The marker is not valid"),
            PageError::Size { max } => {
                Elbv2Error::validation(format!("The page size must be between 1 and {max}"))
            }
        }
    }
}
