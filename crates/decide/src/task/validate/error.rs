//! Why a registration is refused, in ECS's words where they are known.

use crate::task::kinds::NetworkMode;
use crate::task::proxy::InvalidProxy;
use crate::task::units::InvalidUnits;

/// A rule that a task definition breaks. `Display` is the message that the caller sees.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    #[error("The task definition could not be read: {0}")]
    Malformed(#[source] serde_json::Error),
    #[error("Actual length: '{length}'. Max allowed length is '{max}' bytes.")]
    TooLarge { length: usize, max: usize },
    #[error("Family contains invalid characters.")]
    Family,
    #[error("Container list cannot be empty.")]
    NoContainers,
    #[error("The task definition has {count} containers; at most {max} are allowed.")]
    TooManyContainers { count: usize, max: usize },
    #[error("Container.name should not be null or empty.")]
    ContainerNameMissing,
    #[error("Container.name contains invalid characters.")]
    ContainerName,
    #[error("Container names must be unique within a task definition: '{name}' is used more than once.")]
    ContainerNameTwice { name: String },
    #[error("Container.image should not be null or empty.")]
    ImageMissing,
    #[error("Container.image contains invalid characters.")]
    Image,
    #[error("A task definition must have at least one essential container.")]
    NoEssentialContainer,
    #[error(transparent)]
    TaskSize(#[from] InvalidUnits),
    #[error("Invalid '{setting}' setting for container '{container}'.")]
    ContainerSetting { container: String, setting: &'static str },
    #[error("Invalid setting for container '{container}'. '{setting}' must be between {low} and {high}.")]
    ContainerRange { container: String, setting: &'static str, low: i64, high: i64 },
    #[error("Invalid setting for container '{container}'. At most {max} '{setting}' are allowed.")]
    ContainerCount { container: String, setting: &'static str, max: usize },
    #[error(
        "Invalid setting for container '{container}'. '{value}' is specified more than once in '{setting}'."
    )]
    ContainerRepeats { container: String, setting: &'static str, value: String },
    #[error(
        "Invalid setting for container '{container}'. At least one of 'memory' or 'memoryReservation' must be specified."
    )]
    NoMemory { container: String },
    #[error(
        "Invalid setting for container '{container}'. 'memory' must be greater than or equal to 'memoryReservation'."
    )]
    ReservationAboveMemory { container: String },
    #[error("The '{setting}' setting for container '{container}' is greater than for the task.")]
    AboveTask { container: String, setting: &'static str },
    #[error("The total '{setting}' setting of all containers is greater than for the task.")]
    TotalAboveTask { setting: &'static str },
    #[error("When networkMode={mode}, the host ports and container ports in port mappings must match.")]
    HostPortDiffers { mode: NetworkMode },
    #[error("{what} are not supported on container when networkMode={mode}.")]
    NotWithNetworkMode { what: &'static str, mode: NetworkMode },
    #[error("Host port {port}/{protocol} is mapped more than once in the task definition.")]
    HostPortTwice { port: u16, protocol: &'static str },
    #[error("Container port {port} of container '{container}' cannot be exposed for multiple protocols.")]
    PortForTwoProtocols { container: String, port: u16 },
    #[error("Port mapping name '{name}' is used more than once in the task definition.")]
    PortNameTwice { name: String },
    #[error("Unknown container '{name}' in '{setting}' of container '{container}'.")]
    UnknownContainer { container: String, setting: &'static str, name: String },
    #[error("Container '{container}' cannot refer to itself in '{setting}'.")]
    SelfReference { container: String, setting: &'static str },
    #[error("Container links should not have a cycle")]
    LinkCycle,
    #[error("Cycle found in container dependencies: {}.", .path.join(" -> "))]
    DependencyCycle { path: Vec<String> },
    #[error("A dependency container with SUCCESS or COMPLETE condition cannot be an essential container")]
    EssentialDependency,
    #[error("A dependency container with HEALTHY condition must have a health check: '{name}' has none.")]
    DependencyWithoutHealthCheck { name: String },
    #[error("Unknown volume '{name}'.")]
    UnknownVolume { name: String },
    #[error("Volume.name contains invalid characters.")]
    VolumeName,
    #[error("Volume names must be unique within a task definition: '{name}' is used more than once.")]
    VolumeNameTwice { name: String },
    #[error("Volume '{name}' must have exactly one kind of configuration.")]
    VolumeSources { name: String },
    #[error("Invalid '{setting}' setting for volume '{name}'.")]
    VolumeSetting { name: String, setting: &'static str },
    #[error("Only one volume of a task definition can be configured at launch.")]
    VolumesAtLaunch,
    #[error(
        "When an access point is specified for volume '{name}', the root directory must be omitted or set to '/'."
    )]
    AccessPointRoot { name: String },
    #[error("When {what} is used for volume '{name}', transit encryption must be ENABLED.")]
    TransitEncryption { name: String, what: &'static str },
    #[error(
        "Environment variable and secret names must be unique in a container: '{name}' in container '{container}'."
    )]
    SecretNameTwice { container: String, name: String },
    #[error(
        "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'."
    )]
    SecretsWithoutRole,
    #[error(
        "When you are specifying repository credentials, you must also specify a value for 'executionRoleArn'."
    )]
    CredentialsWithoutRole,
    #[error(
        "When a firelensConfiguration object is specified, at least one container has to be configured with the awsfirelens log driver."
    )]
    FirelensUnused,
    #[error(
        "When the awsfirelens log driver is specified, one container must have a firelensConfiguration object."
    )]
    FirelensMissing,
    #[error("At most one container of a task definition can have a firelensConfiguration object.")]
    FirelensTwice,
    #[error("Invalid 'containerName' setting for proxyConfiguration.")]
    ProxyContainer,
    #[error("proxyConfiguration requires networkMode=awsvpc.")]
    ProxyNetworkMode,
    #[error("Invalid 'properties' setting for proxyConfiguration: {0}.")]
    ProxyProperty(InvalidProxy),
    #[error("Invalid '{setting}' setting for task.")]
    TaskSetting { setting: &'static str },
    #[error("At most {max} placement constraints are allowed.")]
    TooManyConstraints { max: usize },
    #[error("Invalid placement constraint expression.")]
    ConstraintExpression,
    #[error("Fargate requires that '{what}' be defined at the task level.")]
    FargateNeeds { what: &'static str },
    #[error("No Fargate configuration exists for given values: {cpu} CPU, {memory} memory.")]
    FargateSize { cpu: u32, memory: u32 },
    #[error("Fargate only supports network mode ‘awsvpc’.")]
    FargateNetworkMode,
    #[error("Fargate compatible task definitions do not support {what}")]
    NotOnFargate { what: &'static str },
    #[error("Tasks using the Fargate launch type do not support {what}.")]
    NotInFargateTasks { what: &'static str },
    #[error("Fargate requires task definition to have execution role ARN to support ECR images.")]
    FargateEcrRole,
    #[error("Ephemeral storage size must be between {low} and {high} GiB.")]
    EphemeralStorage { low: u32, high: u32 },
    #[error("EXTERNAL compatible task definitions do not support {what}.")]
    NotOnExternal { what: &'static str },
    #[error("MANAGED_INSTANCES compatible task definitions do not support {what}.")]
    NotOnManagedInstances { what: &'static str },
}

impl DefinitionError {
    /// The error code that ECS answers with.
    pub fn code(&self) -> &'static str {
        match self {
            DefinitionError::Malformed(_) => "InvalidParameterException",
            _ => "ClientException",
        }
    }
}
