//! The provider `exec`: a program of the operator's makes machines and destroys them. docs/instance-providers.md says
//! what it is told and must answer.

use super::{failure, settings};
use anyhow::{Context, Result, bail};
use gantry_decide::ids::Ec2InstanceId;
use gantry_decide::scaling::instance_type;
use gantry_server::instances::{Answer, InstanceProvider, Machine, Made};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

/// For a machine to be made or destroyed: clouds take minutes.
const MAKE_MAX: Duration = Duration::from_secs(600);
/// For a list.
const LIST_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer: a list of ten thousand machines has 250 kB.
const ANSWER_MAX: u64 = 1 << 20;
/// Bytes of complaints that are read, and characters of them that are told.
const COMPLAINT_MAX: u64 = 64 << 10;
const TOLD_MAX: usize = 200;

/// See the module.
#[derive(Clone, Debug)]
pub struct Exec {
    pub program: PathBuf,
    /// Where machines reach the control plane.
    pub endpoint: String,
    /// Tells this installation's machines from others that the program makes.
    pub installation: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Created {
    private_ip_address: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    instance_ids: Vec<Ec2InstanceId>,
}

impl Exec {
    async fn call(&self, verb: &str, mut request: Value, time: Duration) -> Result<Vec<u8>> {
        request["installation"] = self.installation.clone().into();
        let mut child = Command::new(&self.program)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let mut input = child.stdin.take().context("its input is a pipe")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let complaints = child.stderr.take().context("its errors are a pipe")?;
        let request = request.to_string();
        let talk = async {
            let told = async move {
                // A program that does not read is free to.
                let _ = input.write_all(request.as_bytes()).await;
            };
            let ((), answer, complaint) =
                tokio::join!(told, read(output, ANSWER_MAX), read(complaints, COMPLAINT_MAX));
            anyhow::Ok((child.wait().await?, answer?, complaint?))
        };
        let seconds = time.as_secs();
        let (status, answer, complaint) =
            timeout(time, talk).await.with_context(|| format!("{verb} took more than {seconds} s"))??;
        if !status.success() {
            let complaint = String::from_utf8_lossy(&complaint);
            let last = complaint.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
            let last: String = last.trim().chars().take(TOLD_MAX).collect();
            bail!("the instance provider failed to {verb} ({status}): {last}");
        }
        if answer.len() as u64 >= ANSWER_MAX {
            bail!("the instance provider's answer is too long");
        }
        Ok(answer)
    }

    async fn make(&self, machine: Machine) -> Result<Made> {
        let settings = settings(&machine);
        let Machine { id, scope, spec } = machine;
        let size = instance_type::size(&spec.instance_type).ok();
        let request = json!({
            "instanceId": id,
            "accountId": scope.account,
            "region": scope.region,
            "endpoint": self.endpoint,
            "autoScalingGroupName": spec.group(),
            "capacityProviderName": spec.capacity_provider(),
            "capacityOptionType": if spec.is_spot() { "SPOT" } else { "ON_DEMAND" },
            "availabilityZone": spec.zone,
            "subnetId": spec.subnet,
            "instanceType": spec.instance_type,
            "cpu": size.map(|size| size.cpu),
            "memory": size.map(|size| size.memory),
            "imageId": spec.image_id,
            "userData": spec.user_data(),
            "ecsConfig": settings,
            "tags": spec.tags,
        });
        let answer = self.call("create", request, MAKE_MAX).await?;
        let created: Created = if answer.trim_ascii().is_empty() {
            Created::default()
        } else {
            serde_json::from_slice(&answer)
                .context("the instance provider's answer to create is not what it should be")?
        };
        Ok(Made { address: created.private_ip_address })
    }

    async fn instances(&self) -> Result<BTreeSet<Ec2InstanceId>> {
        let answer = self.call("list", json!({}), LIST_MAX).await?;
        let listed: Listed = serde_json::from_slice(&answer)
            .context("the instance provider's answer to list is not what it should be")?;
        Ok(listed.instance_ids.into_iter().collect())
    }
}

/// What comes, up to a bound; the rest is dropped, so that the writer does not hang.
async fn read(mut from: impl AsyncRead + Unpin, bound: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut from).take(bound).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

impl InstanceProvider for Exec {
    fn create(&self, machine: Machine) -> Answer<'_, Made> {
        Box::pin(async move { self.make(machine).await.map_err(failure) })
    }

    fn destroy(&self, id: Ec2InstanceId) -> Answer<'_, ()> {
        Box::pin(async move {
            let destroyed = self.call("destroy", json!({ "instanceId": id }), MAKE_MAX).await;
            destroyed.map(drop).map_err(failure)
        })
    }

    fn list(&self) -> Answer<'_, BTreeSet<Ec2InstanceId>> {
        Box::pin(async move { self.instances().await.map_err(failure) })
    }
}
