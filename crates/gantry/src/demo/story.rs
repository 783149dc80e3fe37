//! The demo's story: register, run, look, kill, heal, end.

use super::balancing::Balancer;
use super::screen::Screen;
use super::watch::{Watch, address, family, is, short};
use crate::api::Api;
use anyhow::{Context, Result, bail};
use gantry_api::ecs;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const WEB_APP: &str = include_str!("definitions/web-app.json");
const MICROSERVICE: &str = include_str!("definitions/microservice.json");
const BATCH_PROCESSOR: &str = include_str!("definitions/batch-processor.json");
/// Tasks of the web application's service.
const WEB_TASKS: usize = 3;
/// A name for the subnet of the tasks: subnets become resources of their own with the network services.
const SUBNET: &str = "subnet-1";
/// For a page of a neighbour on this machine.
const PAGE_MAX: Duration = Duration::from_secs(5);
/// A page worth showing is shorter.
const PAGE_BYTES_MAX: u64 = 64 << 10;

/// Runs the three task definitions and shows what becomes of them. All tasks still run at the end, but the batch job.
/// `by_name`: where load balancers are found by their host names.
pub async fn tell(
    api: &Api,
    screen: &Screen,
    watch: &mut Watch,
    cgroups: &str,
    by_name: Option<SocketAddr>,
) -> Result<()> {
    screen.title("Three task definitions, as in every ECS tutorial");
    for json in [WEB_APP, MICROSERVICE, BATCH_PROCESSOR] {
        let request: ecs::RegisterTaskDefinitionRequest =
            gantry_wire::json::from_slice(json.as_bytes()).context("a definition of the demo")?;
        let family = request.family.clone();
        let answer = api.call::<ecs::RegisterTaskDefinition>(request).await?;
        let revision = answer.task_definition.and_then(|definition| definition.revision).unwrap_or_default();
        screen.done(&format!("registered {family}:{revision}"));
    }

    screen.title(
        "A load balancer, a service of three web tasks behind it, a microservice of two containers, a batch job",
    );
    let balancer = Balancer::make(api, "web-app").await?;
    create_service(api, &balancer.target_group).await?;
    run_task(api, "microservice", ecs::LaunchType::Ec2).await?;
    run_task(api, "batch-processor", ecs::LaunchType::Fargate).await?;
    let all_run = |tasks: &[&ecs::Task]| {
        let count = |name: &str| tasks.iter().filter(|t| family(t) == name && is(t, "RUNNING")).count();
        let batch =
            tasks.iter().any(|t| family(t) == "batch-processor" && (is(t, "RUNNING") || is(t, "STOPPED")));
        count("web-app") >= WEB_TASKS && count("microservice") == 1 && batch
    };
    watch.until(api, screen, "all tasks RUNNING", all_run).await?;

    screen.title("A page through the load balancer, and one from the microservice that counts visits in its other container");
    let served = balancer.page().await?;
    let named =
        by_name.map(|address| format!(" (in a browser: http://web-app.elb.localhost:{}/)", address.port()));
    screen.done(&format!("http://{}/ answers{}:", balancer.address, named.unwrap_or_default()));
    screen.quote(&gist(&served));
    let task = watch.tasks().find(|t| family(t) == "microservice" && is(t, "RUNNING")).context("it runs")?;
    let url = format!("{}:3000", address(task).context("an awsvpc task has an address")?);
    let counted = page(&url).await.with_context(|| format!("no page from http://{url}/"))?;
    screen.done(&format!("http://{url}/ answers:"));
    screen.quote(&gist(&counted));

    screen.title("kill -9 a web task; the service replaces it");
    let before: BTreeSet<String> = watch.tasks().filter_map(|task| task.task_arn.clone()).collect();
    let victim = watch.tasks().find(|t| family(t) == "web-app" && is(t, "RUNNING")).context("it runs")?;
    let arn = victim.task_arn.clone().context("a task has an ARN")?;
    let killed = kill(cgroups, &arn)?;
    screen.done(&format!("killed process {killed} of task {}", short(&arn)));
    let replaced = |tasks: &[&ecs::Task]| {
        let new = |t: &&&ecs::Task| t.task_arn.as_ref().is_some_and(|arn| !before.contains(arn));
        let running = tasks.iter().filter(|t| family(t) == "web-app" && is(t, "RUNNING"));
        running.clone().any(|t| new(&t)) && running.count() >= WEB_TASKS
    };
    watch.until(api, screen, "a replacement RUNNING", replaced).await?;
    screen.done("three web tasks run again");

    screen.title("The batch job's end");
    let ended =
        |tasks: &[&ecs::Task]| tasks.iter().any(|t| family(t) == "batch-processor" && is(t, "STOPPED"));
    watch.until(api, screen, "the end of the batch job", ended).await?;
    let batch = watch.tasks().find(|task| family(task) == "batch-processor").context("it was run")?;
    let code = batch.containers.iter().flatten().find_map(|container| container.exit_code);
    match code {
        Some(0) => screen.done("batch-processor ended with exit code 0"),
        other => bail!("the batch job ended with {other:?}: {:?}", batch.stopped_reason),
    }
    Ok(())
}

/// Takes the service and every task away again, showing the last states.
pub async fn end(api: &Api, screen: &Screen, watch: &mut Watch) -> Result<()> {
    screen.title("Everything is stopped");
    let request =
        ecs::DeleteServiceRequest { service: "web-app".to_owned(), force: Some(true), ..Default::default() };
    api.call::<ecs::DeleteService>(request).await?;
    let running: Vec<String> = watch
        .tasks()
        .filter(|task| family(task) != "web-app" && !is(task, "STOPPED"))
        .filter_map(|task| task.task_arn.clone())
        .collect();
    for task in running {
        let reason = Some("the demo is over".to_owned());
        api.call::<ecs::StopTask>(ecs::StopTaskRequest { task, reason, ..Default::default() }).await?;
    }
    let all_stopped = |tasks: &[&ecs::Task]| tasks.iter().all(|task| is(task, "STOPPED"));
    watch.until(api, screen, "the end of all tasks", all_stopped).await
}

/// The same by hand.
pub const BY_HAND: &str = r#"eval "$(gantry env)"
aws ecs register-task-definition --cli-input-json file://web-app.json
VPC=$(aws ec2 describe-vpcs --query Vpcs[0].VpcId --output text)
GROUP=$(aws elbv2 create-target-group --name web-app --protocol HTTP --port 80 --target-type ip --vpc-id $VPC \
    --query TargetGroups[0].TargetGroupArn --output text)
BALANCER=$(aws elbv2 create-load-balancer --name web-app --subnets subnet-1 subnet-2 \
    --query LoadBalancers[0].LoadBalancerArn --output text)
aws elbv2 create-listener --load-balancer-arn $BALANCER --protocol HTTP --port 80 \
    --default-actions Type=forward,TargetGroupArn=$GROUP
aws ecs create-service --service-name web-app --task-definition web-app --desired-count 3 --launch-type FARGATE \
    --load-balancers targetGroupArn=$GROUP,containerName=web-server,containerPort=80 \
    --network-configuration 'awsvpcConfiguration={subnets=[subnet-1]}'
aws ecs wait services-stable --services web-app
curl http://web-app.elb.localhost:4581/
aws ecs list-tasks --service-name web-app
aws ecs stop-task --task TASK
aws ecs run-task --task-definition batch-processor --launch-type FARGATE \
    --network-configuration 'awsvpcConfiguration={subnets=[subnet-1]}'
aws ecs delete-service --service web-app --force"#;

fn network() -> ecs::NetworkConfiguration {
    let awsvpc = ecs::AwsVpcConfiguration { subnets: vec![SUBNET.to_owned()], ..Default::default() };
    ecs::NetworkConfiguration { awsvpc_configuration: Some(awsvpc) }
}

async fn create_service(api: &Api, target_group: &str) -> Result<()> {
    let behind = ecs::LoadBalancer {
        target_group_arn: Some(target_group.to_owned()),
        container_name: Some("web-server".to_owned()),
        container_port: Some(80),
        ..Default::default()
    };
    let request = ecs::CreateServiceRequest {
        service_name: "web-app".to_owned(),
        task_definition: Some("web-app".to_owned()),
        desired_count: Some(WEB_TASKS as i32),
        launch_type: Some(ecs::LaunchType::Fargate),
        network_configuration: Some(network()),
        load_balancers: Some(vec![behind]),
        ..Default::default()
    };
    api.call::<ecs::CreateService>(request).await?;
    Ok(())
}

async fn run_task(api: &Api, family: &str, launch_type: ecs::LaunchType) -> Result<()> {
    let request = ecs::RunTaskRequest {
        task_definition: family.to_owned(),
        launch_type: Some(launch_type),
        network_configuration: Some(network()),
        ..Default::default()
    };
    let failures = api.call::<ecs::RunTask>(request).await?.failures.unwrap_or_default();
    match failures.first() {
        None => Ok(()),
        Some(failure) => {
            bail!("{family} cannot be placed: {}", failure.reason.as_deref().unwrap_or("no reason given"))
        }
    }
}

/// SIGKILLs a process of a task, found by its control group; its id.
fn kill(cgroups: &str, task_arn: &str) -> Result<i32> {
    let id = task_arn.rsplit('/').next().unwrap_or(task_arn);
    let pid = process_of(cgroups, id).with_context(|| format!("no process of task {id}"))?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)
        .with_context(|| format!("cannot kill process {pid}"))?;
    Ok(pid)
}

/// A process whose control group lies below `cgroups` and names the task.
fn process_of(cgroups: &str, task_id: &str) -> Option<i32> {
    let entries = std::fs::read_dir("/proc").ok()?;
    entries.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let groups = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("cgroup")).ok()?;
        groups.lines().any(|line| line.contains(cgroups) && line.contains(task_id)).then_some(pid)
    })
}

pub async fn page(address: &str) -> Result<String> {
    let fetch = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.take(PAGE_BYTES_MAX).read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    timeout(PAGE_MAX, fetch).await?
}

/// A page's text without its markup.
fn gist(answer: &str) -> String {
    let body = answer.split_once("<body>").map_or(answer, |(_, body)| body);
    let mut text = String::new();
    let mut inside = false;
    for char in body.replace("</th>", ": ").chars() {
        match char {
            '<' => inside = true,
            '>' => inside = false,
            _ if !inside => text.push(char),
            _ => {}
        }
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).take(8).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_definitions_are_requests() {
        for json in [WEB_APP, MICROSERVICE, BATCH_PROCESSOR] {
            let request: ecs::RegisterTaskDefinitionRequest =
                gantry_wire::json::from_slice(json.as_bytes()).unwrap();
            assert!(!request.container_definitions.is_empty());
        }
    }

    #[test]
    fn a_page_is_shown_as_text() {
        let page = "HTTP/1.0 200 OK\r\n\r\n<html><style>b{}</style><body><h1>Hello</h1>\n<tr><th>host</th><td>web</td></tr>";
        assert_eq!(gist(page), "Hello\nhost: web");
    }
}
