//! The errors that EC2 answers, with AWS's codes and words. Clients look for these texts.

use crate::page::PageError;
use gantry_decide::network::InvalidRule;
use gantry_wire::ApiError;

/// Kinds of things that have ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Vpc,
    Subnet,
    SecurityGroup,
    SecurityGroupRule,
    RouteTable,
    NetworkAcl,
    InternetGateway,
    NetworkInterface,
    LaunchTemplate,
}

impl Kind {
    pub const ALL: &'static [Kind] = &[
        Kind::Vpc,
        Kind::Subnet,
        Kind::SecurityGroup,
        Kind::SecurityGroupRule,
        Kind::RouteTable,
        Kind::NetworkAcl,
        Kind::InternetGateway,
        Kind::NetworkInterface,
        Kind::LaunchTemplate,
    ];

    /// What ids of this kind begin with.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::Vpc => "vpc-",
            Kind::Subnet => "subnet-",
            Kind::SecurityGroup => "sg-",
            Kind::SecurityGroupRule => "sgr-",
            Kind::RouteTable => "rtb-",
            Kind::NetworkAcl => "acl-",
            Kind::InternetGateway => "igw-",
            Kind::NetworkInterface => "eni-",
            Kind::LaunchTemplate => "lt-",
        }
    }

    /// AWS's codes for ids of nothing and for texts that are no ids; their spelling follows no rule.
    fn codes(self) -> (&'static str, &'static str) {
        match self {
            Kind::Vpc => ("InvalidVpcID.NotFound", "InvalidVpcID.Malformed"),
            Kind::Subnet => ("InvalidSubnetID.NotFound", "InvalidSubnetID.Malformed"),
            Kind::SecurityGroup => ("InvalidGroup.NotFound", "InvalidGroupId.Malformed"),
            Kind::SecurityGroupRule => {
                ("InvalidSecurityGroupRuleId.NotFound", "InvalidSecurityGroupRuleId.Malformed")
            }
            Kind::RouteTable => ("InvalidRouteTableID.NotFound", "InvalidRouteTableId.Malformed"),
            Kind::NetworkAcl => ("InvalidNetworkAclID.NotFound", "InvalidNetworkAclId.Malformed"),
            Kind::InternetGateway => {
                ("InvalidInternetGatewayID.NotFound", "InvalidInternetGatewayId.Malformed")
            }
            Kind::NetworkInterface => {
                ("InvalidNetworkInterfaceID.NotFound", "InvalidNetworkInterfaceId.Malformed")
            }
            Kind::LaunchTemplate => ("InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.Malformed"),
        }
    }

    /// The kind in AWS's sentences.
    fn noun(self) -> &'static str {
        match self {
            Kind::Vpc => "vpc ID",
            Kind::Subnet => "subnet ID",
            Kind::SecurityGroup => "security group",
            Kind::SecurityGroupRule => "security group rule ID",
            Kind::RouteTable => "routeTable ID",
            Kind::NetworkAcl => "networkAcl ID",
            Kind::InternetGateway => "internetGateway ID",
            Kind::NetworkInterface => "networkInterface ID",
            Kind::LaunchTemplate => "launch template ID",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ec2Error {
    #[error("The {} '{id}' does not exist", kind.noun())]
    NotFound { kind: Kind, id: String },
    #[error("Invalid id: \"{id}\" (expecting \"{}...\")", kind.prefix())]
    Malformed { kind: Kind, id: String },
    #[error("The specified launch template, with template ID {0}, does not exist.")]
    NoTemplate(String),
    #[error("The specified launch template, with template name {0}, does not exist.")]
    NoTemplateNamed(String),
    #[error("Could not find the specified version {version} for the launch template with ID {template}.")]
    NoTemplateVersion { template: String, version: String },
    #[error("Launch template name already in use.")]
    TemplateExists,
    #[error("Launch template names must have 3 to 128 letters, digits and any of ( ) . - / _")]
    TemplateName,
    #[error("The ID '{0}' is not valid")]
    UnknownId(String),
    #[error("The security group '{name}' does not exist in default VPC '{vpc}'")]
    NoGroupInDefaultVpc { name: String, vpc: String },
    #[error("No default VPC for this user. GroupName is only supported for EC2-Classic and default VPC.")]
    NoDefaultVpc,
    #[error("You have specified two resources that belong to different networks.")]
    OtherNetwork,
    #[error("{0}")]
    InvalidValue(String),
    #[error("{0}")]
    InvalidCombination(String),
    #[error("The request must contain the parameter {0}")]
    Missing(&'static str),
    #[error("{0}")]
    MalformedTagKey(String),
    #[error("The CIDR '{0}' is invalid.")]
    VpcRange(String),
    #[error("The CIDR '{0}' is invalid.")]
    SubnetRange(String),
    #[error("The CIDR '{0}' conflicts with another subnet")]
    SubnetConflict(String),
    #[error("The vpc CIDR block association ID '{0}' does not exist")]
    NoVpcBlock(String),
    #[error("The subnet CIDR block association ID '{0}' does not exist")]
    NoSubnetBlock(String),
    #[error("The vpc {vpc} currently has a subnet within CIDR block {block}")]
    BlockInUse { vpc: String, block: String },
    #[error(
        "The vpc CIDR block with association ID {0} may not be disassociated. It is the primary IPv4 CIDR block of the VPC"
    )]
    PrimaryBlock(String),
    #[error("{0}")]
    BlockLimit(String),
    #[error("The security group '{name}' already exists for VPC '{vpc}'")]
    DuplicateGroup { name: String, vpc: String },
    #[error("Cannot use reserved security group name: {0}")]
    ReservedGroup(String),
    #[error("the specified group: \"{id}\" name: \"{name}\" cannot be deleted by a user")]
    CannotDelete { id: String, name: String },
    #[error("the specified rule \"{0}\" already exists")]
    DuplicateRule(String),
    #[error("The specified rule does not exist in this security group.")]
    NoSuchRule,
    #[error("{0}")]
    Dependency(String),
    #[error("The maximum number of {0} has been reached.")]
    Limit(Limit),
    #[error("The token is not valid.")]
    InvalidToken,
    #[error("{0}")]
    Unsupported(String),
    #[error("Request would have succeeded, but DryRun flag is set.")]
    DryRun,
}

/// What there is a most of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Vpcs,
    Subnets,
    SecurityGroups,
    Rules,
    Tags,
    Filters,
    LaunchTemplates,
    LaunchTemplateVersions,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Limit::Vpcs => "VPCs",
            Limit::Subnets => "subnets",
            Limit::SecurityGroups => "security groups",
            Limit::Rules => "rules per security group",
            Limit::Tags => "tags for a resource",
            Limit::Filters => "filters and filter values",
            Limit::LaunchTemplates => "launch templates",
            Limit::LaunchTemplateVersions => "versions of a launch template",
        })
    }
}

impl Ec2Error {
    pub fn invalid(message: impl Into<String>) -> Ec2Error {
        Ec2Error::InvalidValue(message.into())
    }

    /// A value that a parameter cannot have.
    pub fn value(value: &str, parameter: &str, why: &str) -> Ec2Error {
        let value: String = value.chars().take(256).collect();
        Ec2Error::InvalidValue(format!("Value ({value}) for parameter {parameter} is invalid. {why}"))
    }

    pub fn unsupported(message: impl Into<String>) -> Ec2Error {
        Ec2Error::Unsupported(message.into())
    }

    /// AWS's code.
    pub fn code(&self) -> &'static str {
        match self {
            Ec2Error::NotFound { kind, .. } => kind.codes().0,
            Ec2Error::Malformed { kind, .. } => kind.codes().1,
            Ec2Error::NoTemplate(_) => "InvalidLaunchTemplateId.NotFound",
            Ec2Error::NoTemplateNamed(_) => "InvalidLaunchTemplateName.NotFoundException",
            Ec2Error::NoTemplateVersion { .. } => "InvalidLaunchTemplateId.VersionNotFound",
            Ec2Error::TemplateExists => "InvalidLaunchTemplateName.AlreadyExistsException",
            Ec2Error::TemplateName => "InvalidLaunchTemplateName.MalformedException",
            Ec2Error::UnknownId(_) => "InvalidID",
            Ec2Error::NoGroupInDefaultVpc { .. } | Ec2Error::OtherNetwork => "InvalidGroup.NotFound",
            Ec2Error::NoDefaultVpc => "VPCIdNotSpecified",
            Ec2Error::InvalidValue(_) => "InvalidParameterValue",
            Ec2Error::InvalidCombination(_) => "InvalidParameterCombination",
            Ec2Error::Missing(_) => "MissingParameter",
            Ec2Error::MalformedTagKey(_) => "InvalidTagKey.Malformed",
            Ec2Error::VpcRange(_) => "InvalidVpc.Range",
            Ec2Error::SubnetRange(_) => "InvalidSubnet.Range",
            Ec2Error::SubnetConflict(_) => "InvalidSubnet.Conflict",
            Ec2Error::NoVpcBlock(_) => "InvalidVpcCidrBlockAssociationID.NotFound",
            Ec2Error::NoSubnetBlock(_) => "InvalidSubnetCidrBlockAssociationID.NotFound",
            Ec2Error::BlockInUse { .. } => "InvalidCidrBlock.InUse",
            Ec2Error::PrimaryBlock(_) => "OperationNotPermitted",
            Ec2Error::BlockLimit(_) => "CidrLimitExceeded",
            Ec2Error::DuplicateGroup { .. } => "InvalidGroup.Duplicate",
            Ec2Error::ReservedGroup(_) => "InvalidGroup.Reserved",
            Ec2Error::CannotDelete { .. } => "CannotDelete",
            Ec2Error::DuplicateRule(_) => "InvalidPermission.Duplicate",
            Ec2Error::NoSuchRule => "InvalidPermission.NotFound",
            Ec2Error::Dependency(_) => "DependencyViolation",
            Ec2Error::Limit(limit) => match limit {
                Limit::Vpcs => "VpcLimitExceeded",
                Limit::Subnets => "SubnetLimitExceeded",
                Limit::SecurityGroups => "SecurityGroupLimitExceeded",
                Limit::Rules => "RulesPerSecurityGroupLimitExceeded",
                Limit::Tags => "TagLimitExceeded",
                Limit::Filters => "FilterLimitExceeded",
                Limit::LaunchTemplates => "LaunchTemplateLimitExceeded",
                Limit::LaunchTemplateVersions => "VersionLimitExceeded",
            },
            Ec2Error::InvalidToken => "InvalidNextToken",
            Ec2Error::Unsupported(_) => "UnsupportedOperation",
            Ec2Error::DryRun => "DryRunOperation",
        }
    }
}

impl From<Ec2Error> for ApiError {
    fn from(error: Ec2Error) -> ApiError {
        // EC2 answers a dry run as a condition that did not hold.
        let status = if error == Ec2Error::DryRun { 412 } else { 400 };
        ApiError::new(error.code(), error.to_string()).with_status(status)
    }
}

impl From<PageError> for Ec2Error {
    fn from(error: PageError) -> Ec2Error {
        match error {
            PageError::Token => Ec2Error::InvalidToken,
            PageError::Size { max } => {
                Ec2Error::invalid(format!("The value of MaxResults must be between 5 and {max}."))
            }
        }
    }
}

impl From<InvalidRule> for Ec2Error {
    fn from(error: InvalidRule) -> Ec2Error {
        Ec2Error::invalid(error.to_string())
    }
}
