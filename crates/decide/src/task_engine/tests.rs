//! Scripts: events in, actions out, rule by rule.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::lifecycle::{DesiredStatus, HealthStatus};
use crate::task::{ContainerCondition, NetworkMode, TransportProtocol};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn arn(name: &str) -> TaskArn {
    TaskArn(name.to_owned())
}

pub(super) fn container(
    name: &str,
    essential: bool,
    depends_on: &[(&str, ContainerCondition)],
) -> ContainerSpec {
    let dependency =
        |&(container, condition): &(&str, _)| Dependency { container: container.to_owned(), condition };
    ContainerSpec {
        name: name.to_owned(),
        essential,
        depends_on: depends_on.iter().map(dependency).collect(),
        start_timeout: None,
        stop_timeout: None,
        volumes_from: Vec::new(),
        restart: None,
    }
}

pub(super) fn spec(name: &str, containers: Vec<ContainerSpec>) -> TaskSpec {
    TaskSpec {
        arn: arn(name),
        network_mode: NetworkMode::Host,
        pause: false,
        waits_for_resources: true,
        cpu: 256,
        memory: 128,
        host_ports: Vec::new(),
        containers,
    }
}

/// An engine and a clock; actions come back as short lines, savings and wake-ups left out.
struct Script {
    engine: TaskEngine,
    now: Timestamp,
}

impl Script {
    fn new() -> Script {
        let capacity = Capacity { cpu: 1024, memory: 1024, ..Capacity::default() };
        Script {
            engine: TaskEngine::new(EngineConfig::new(capacity)),
            now: Timestamp::from_millis(1_000_000),
        }
    }

    fn step(&mut self, event: Event) -> Vec<String> {
        self.engine.step(self.now, event).iter().filter_map(line).collect()
    }

    fn after(&mut self, seconds: u64) -> Vec<String> {
        self.now = self.now + Duration::from_secs(seconds);
        self.step(Event::Tick)
    }

    fn accept(&mut self, spec: TaskSpec) -> Vec<String> {
        self.step(Event::TaskAccepted { spec, desired: DesiredStatus::Running })
    }

    fn stop(&mut self, task: &str) -> Vec<String> {
        self.step(Event::StopRequested { task: arn(task) })
    }

    fn image(&mut self, container: &str) -> Vec<String> {
        self.step(Event::ImageReady { task: arn("t"), container: container.into(), digest: None, pull: None })
    }

    fn started(&mut self, container: &str) -> Vec<String> {
        let runtime_id = format!("id-{container}");
        self.step(Event::ContainerStarted {
            task: arn("t"),
            container: container.into(),
            runtime_id,
            bindings: vec![],
        })
    }

    fn exited(&mut self, container: &str, code: i32) -> Vec<String> {
        let exit = Exit { code: Some(code), out_of_memory: code == 137, at: self.now };
        self.step(Event::ContainerExited { task: arn("t"), container: container.into(), exit })
    }

    fn submitted(&mut self, id: u64) -> Vec<String> {
        self.step(Event::Submitted { task: arn("t"), id })
    }

    /// A task `t` of these containers, all of them running and reported.
    fn running(&mut self, containers: Vec<ContainerSpec>) {
        let names: Vec<_> = containers.iter().map(|container| container.name.clone()).collect();
        self.accept(spec("t", containers));
        names.iter().for_each(|name| _ = self.image(name));
        names.iter().for_each(|name| _ = self.started(name));
        self.submitted(0);
    }
}

fn line(action: &Action) -> Option<String> {
    Some(match action {
        Action::Persist { .. } | Action::WakeAt(_) => return None,
        Action::PrepareImage { container, .. } => format!("image {container}"),
        Action::SetUpNetwork { .. } => "network up".into(),
        Action::TearDownNetwork { .. } => "network down".into(),
        Action::Launch { container, .. } => format!("launch {container}"),
        Action::Restart { container, .. } => format!("restart {container}"),
        Action::Signal { container, signal, .. } => format!("{signal:?} {container}"),
        Action::RemoveContainer { container, .. } => format!("remove {container}"),
        Action::Forget { task } => format!("forget {task}"),
        Action::Submit(submission) => {
            let changes: Vec<_> = submission
                .containers
                .iter()
                .map(|change| {
                    let code = change.exit_code.map(|code| format!("({code})")).unwrap_or_default();
                    let reason =
                        change.reason.as_ref().map(|reason| format!(" {reason}")).unwrap_or_default();
                    format!("{} {}{code}{reason}", change.name, change.status)
                })
                .collect();
            let reason = if submission.reason.is_empty() {
                String::new()
            } else {
                format!(" '{}'", submission.reason)
            };
            format!("{} {}{reason} [{}]", submission.task, submission.status, changes.join(", "))
        }
    })
}

#[test]
fn a_task_lives_from_payload_to_forgetting() {
    let mut script = Script::new();
    let mut task = spec("t", vec![container("app", true, &[])]);
    task.network_mode = NetworkMode::Awsvpc;
    assert_eq!(script.accept(task), ["network up", "image app"]);
    let digest = Some("sha256:aa".to_owned());
    let ready = Event::ImageReady { task: arn("t"), container: "app".into(), digest, pull: None };
    assert_eq!(script.step(ready), ["t PENDING [app PENDING]"]);
    assert_eq!(script.step(Event::NetworkSetUp { task: arn("t"), result: Ok(()) }), ["launch app"]);
    assert_eq!(script.started("app"), [""; 0], "one submission at a time");
    assert_eq!(script.submitted(0), ["t RUNNING [app RUNNING]"]);
    assert_eq!(script.submitted(1), [""; 0]);
    assert_eq!(script.stop("t"), ["Stop app"]);
    assert_eq!(script.exited("app", 0), ["network down"]);
    assert_eq!(script.step(Event::NetworkTornDown { task: arn("t") }), ["t STOPPED [app STOPPED(0)]"]);
    assert_eq!(script.submitted(2), [""; 0]);
    assert_eq!(script.after(3 * 3600), ["remove app", "forget t"]);
    assert!(script.engine.task(&arn("t")).is_none());
}

#[test]
fn sigkill_follows_after_the_stop_timeout_and_ends_somewhere() {
    let mut script = Script::new();
    let mut app = container("app", true, &[]);
    app.stop_timeout = Some(Duration::from_secs(2));
    script.running(vec![app]);
    assert_eq!(script.stop("t"), ["Stop app"]);
    assert_eq!(script.stop("t"), [""; 0], "a repeated stop is no news");
    assert_eq!(script.after(1), [""; 0]);
    assert_eq!(script.after(1), ["Kill app"]);
    for _ in 0..4 {
        assert_eq!(script.after(5), ["Kill app"]);
    }
    let reason = "CannotStopContainerError: the process survived SIGKILL";
    assert_eq!(script.after(5), [format!("t STOPPED [app STOPPED {reason}]")]);
}

#[test]
fn an_essential_exit_stops_the_others_in_reverse_order() {
    use ContainerCondition::Start;
    let mut script = Script::new();
    script.running(vec![
        container("db", false, &[]),
        container("mid", false, &[("db", Start)]),
        container("app", true, &[]),
    ]);
    assert_eq!(script.exited("app", 137), ["Stop mid"]);
    assert_eq!(script.exited("mid", 0), ["Stop db"]);
    let out = script.exited("db", 0);
    let oom = "app STOPPED(137) OutOfMemoryError: Container killed due to memory usage";
    assert_eq!(out, [format!("t STOPPED [{oom}, mid STOPPED(0), db STOPPED(0)]")]);
}

#[test]
fn conditions_decide_who_starts_when() {
    use ContainerCondition::*;
    for (condition, code, starts) in
        [(Complete, 3, true), (Success, 0, true), (Success, 3, false), (Healthy, 0, false)]
    {
        let mut script = Script::new();
        let init = container("init", false, &[]);
        script.accept(spec("t", vec![init, container("app", true, &[("init", condition)])]));
        script.image("app");
        assert_eq!(script.image("init"), ["launch init"]);
        assert_eq!(script.started("init"), [""; 0]);
        let out = script.exited("init", code);
        if starts {
            assert_eq!(out, ["launch app"], "{condition} {code}");
        } else {
            assert!(
                out[0].contains("app STOPPED(143) CannotStartContainerError: dependency graph:"),
                "{out:?}"
            );
        }
    }
}

#[test]
fn health_lets_dependents_start_and_a_start_timeout_gives_up() {
    for healthy in [true, false] {
        let mut script = Script::new();
        let mut db = container("db", true, &[]);
        db.start_timeout = Some(Duration::from_secs(20));
        script.accept(spec("t", vec![db, container("app", true, &[("db", ContainerCondition::Healthy)])]));
        script.image("app");
        script.image("db");
        script.started("db");
        if healthy {
            let health = HealthStatus::Healthy;
            let out = script.step(Event::HealthChanged { task: arn("t"), container: "db".into(), health });
            assert_eq!(out, ["launch app"]);
        } else {
            assert_eq!(
                script.after(19),
                ["t PENDING [db RUNNING]"],
                "the flush of waiting container changes"
            );
            assert_eq!(script.after(1), ["Stop db"]);
        }
    }
}

#[test]
fn tasks_wait_in_line_for_resources() {
    let mut script = Script::new();
    let sized = |name, cpu| TaskSpec { cpu, ..spec(name, vec![container("c", true, &[])]) };
    assert_eq!(script.accept(sized("t", 1000)), ["image c"]);
    assert_eq!(script.accept(sized("big", 800)), [""; 0]);
    assert_eq!(script.accept(sized("small", 10)), [""; 0], "nobody overtakes");
    let fargate = TaskSpec { waits_for_resources: false, ..sized("fargate", 4096) };
    assert_eq!(script.accept(fargate), ["image c"]);
    assert_eq!(script.stop("t"), ["t STOPPED [c STOPPED]", "image c", "image c"]);
}

#[test]
fn a_port_has_one_owner() {
    let mut script = Script::new();
    let port = HostPort { protocol: TransportProtocol::Tcp, port: 80 };
    let on_port = |name| TaskSpec { host_ports: vec![port], ..spec(name, vec![container("c", true, &[])]) };
    assert_eq!(script.accept(on_port("t")), ["image c"]);
    assert_eq!(script.accept(on_port("u")), [""; 0]);
    let out = script.stop("u");
    assert!(out[0].starts_with("u STOPPED [c STOPPED TaskStoppedBeforePullBeginError: "), "{out:?}");
    assert_eq!(script.accept(on_port("v")), [""; 0]);
    assert_eq!(script.stop("t"), ["t STOPPED [c STOPPED]", "image c"]);
}

#[test]
fn what_cannot_run_is_answered_with_stopped() {
    use ContainerCondition::Start;
    let mut script = Script::new();
    let stopped = |spec| Event::TaskAccepted { spec, desired: DesiredStatus::Stopped };
    let unknown = stopped(spec("a", vec![container("c", true, &[])]));
    assert_eq!(script.step(unknown), ["a STOPPED [c STOPPED]"]);
    let state_error = "TaskStateError: Agent could not progress task's state to stopped";
    assert_eq!(script.step(stopped(spec("b", vec![]))), [format!("b STOPPED '{state_error}' []")]);
    let failure = Failure::new(FailureKind::UnrecogniedTaskError, "Error loading task");
    let out = script.step(Event::TaskRejected { task: arn("c"), failure });
    assert_eq!(out, ["c STOPPED 'UnrecogniedTaskError: Error loading task' []"]);
    let circle = vec![container("x", true, &[("y", Start)]), container("y", true, &[("x", Start)])];
    assert!(script.accept(spec("d", circle))[0].starts_with("d STOPPED 'TaskDependencyError: "));
    let twins = vec![container("x", true, &[]), container("x", true, &[])];
    assert!(script.accept(spec("e", twins))[0].starts_with("e STOPPED 'TaskStateError: "));
}

#[test]
fn repetition_changes_nothing_and_nothing_goes_back() {
    let mut script = Script::new();
    script.running(vec![container("app", true, &[])]);
    let task = spec("t", vec![container("app", true, &[]), container("other", true, &[])]);
    assert_eq!(
        script
            .engine
            .step(script.now, Event::TaskAccepted { spec: task.clone(), desired: DesiredStatus::Running }),
        []
    );
    assert_eq!(script.stop("t"), ["Stop app"]);
    assert_eq!(script.accept(task), [""; 0]);
    assert_eq!(script.started("app"), [""; 0]);
    assert_eq!(script.stop("nobody"), [""; 0]);
}

#[test]
fn the_first_error_is_the_reason() {
    let mut script = Script::new();
    script.accept(spec("t", vec![container("a", true, &[]), container("b", true, &[])]));
    let failure = Failure::new(FailureKind::CannotPullContainerError, "no such image");
    let out = script.step(Event::ImageFailed { task: arn("t"), container: "a".into(), failure, pull: None });
    let reason = "CannotPullContainerError: no such image";
    assert_eq!(out, [format!("t STOPPED '{reason}' [a STOPPED {reason}, b STOPPED]")]);
}

#[test]
fn submissions_are_retried_in_order_and_dropped_when_refused() {
    let mut script = Script::new();
    script.accept(spec("t", vec![container("app", true, &[])]));
    script.image("app");
    assert_eq!(script.started("app"), ["t RUNNING [app RUNNING]"]);
    let failed = |failure| Event::SubmitFailed { task: arn("t"), id: 0, failure };
    assert_eq!(script.step(failed(SubmitFailure::Later)), [""; 0]);
    assert_eq!(script.exited("app", 1), [""; 0], "STOPPED waits for RUNNING");
    assert_eq!(script.after(1), ["t RUNNING [app RUNNING]"]);
    assert_eq!(script.step(failed(SubmitFailure::Refused)), ["t STOPPED [app STOPPED(1)]"]);
}

#[test]
fn a_restart_adopts_what_runs_and_tells_what_ended() {
    let cases: [(Option<Found>, &[&str]); 3] = [
        (Some(Found::Running { runtime_id: "id-app".into(), bindings: vec![] }), &[]),
        (
            Some(Found::Exited {
                runtime_id: "id-app".into(),
                exit: Exit { code: Some(7), out_of_memory: false, at: Timestamp::EPOCH },
            }),
            &["t STOPPED [app STOPPED(7)]"],
        ),
        (None, &["t STOPPED [app STOPPED ContainerVanishedError: Container is unknown to the runtime]"]),
    ];
    for (found, expected) in cases {
        let mut before = Script::new();
        before.running(vec![container("app", true, &[])]);
        let saved = serde_json::to_vec(before.engine.task(&arn("t")).unwrap()).unwrap();
        let mut script = Script::new();
        let task = serde_json::from_slice(&saved).unwrap();
        let containers: BTreeMap<_, _> = found.map(|found| ("app".to_owned(), found)).into_iter().collect();
        assert_eq!(script.step(Event::Recovered { task: Box::new(task), containers }), expected);
    }
}

#[test]
fn a_restart_in_the_middle_of_a_launch_launches_once() {
    let mut before = Script::new();
    before.accept(spec("t", vec![container("app", true, &[])]));
    assert_eq!(before.image("app"), ["launch app"]);
    let task = Box::new(before.engine.task(&arn("t")).unwrap().clone());
    let running = Found::Running { runtime_id: "id-app".into(), bindings: vec![] };
    let containers = BTreeMap::from([("app".to_owned(), running)]);
    let adopted = Script::new().step(Event::Recovered { task: task.clone(), containers });
    assert_eq!(adopted, ["t RUNNING [app RUNNING]"]);
    let again = Script::new().step(Event::Recovered { task, containers: BTreeMap::new() });
    assert_eq!(again, ["image app"]);
}

fn restarting(name: &str, seconds: u64) -> ContainerSpec {
    let restart =
        RestartPolicy { ignored_exit_codes: vec![3], attempt_period: Some(Duration::from_secs(seconds)) };
    ContainerSpec { restart: Some(restart), ..container(name, true, &[]) }
}

#[test]
fn a_restart_policy_starts_a_container_again_and_nobody_is_told() {
    let mut script = Script::new();
    script.running(vec![restarting("app", 60)]);
    script.after(60);
    assert_eq!(script.exited("app", 1), ["restart app"]);
    assert_eq!(script.started("app"), [""; 0]);
    assert_eq!(script.engine.task(&arn("t")).unwrap().container("app").unwrap().restarts, 1);
    // Counted from the restart, and an exit that comes too soon is an end.
    script.after(59);
    assert_eq!(script.exited("app", 1), ["t STOPPED [app STOPPED(1)]"]);
}

#[test]
fn exits_without_a_code_ignored_ones_and_those_of_a_stopping_task_are_ends() {
    let mut script = Script::new();
    script.running(vec![restarting("app", 0)]);
    assert_eq!(script.exited("app", 3), ["t STOPPED [app STOPPED(3)]"]);

    let mut script = Script::new();
    script.running(vec![restarting("app", 0)]);
    let exit = Exit { code: None, out_of_memory: false, at: script.now };
    let ended = script.step(Event::ContainerExited { task: arn("t"), container: "app".into(), exit });
    assert_eq!(ended, ["t STOPPED [app STOPPED]"]);

    let mut script = Script::new();
    script.running(vec![restarting("app", 0)]);
    assert_eq!(script.stop("t"), ["Stop app"]);
    assert_eq!(script.exited("app", 143), ["t STOPPED [app STOPPED(143)]"]);
}

#[test]
fn a_restart_that_fails_is_the_end_that_came_before_and_a_stop_waits_for_its_answer() {
    let mut script = Script::new();
    script.running(vec![restarting("app", 0)]);
    assert_eq!(script.exited("app", 1), ["restart app"]);
    let failure = Failure::new(FailureKind::CannotStartContainerError, "no");
    let failed = Event::ContainerFailed { task: arn("t"), container: "app".into(), failure };
    assert_eq!(script.step(failed), ["t STOPPED [app STOPPED(1) CannotStartContainerError: no]"]);

    let mut script = Script::new();
    script.running(vec![restarting("app", 0)]);
    script.exited("app", 1);
    assert_eq!(script.stop("t"), [""; 0]);
    assert_eq!(script.started("app"), ["Stop app"]);
}

#[test]
fn a_restart_survives_one_of_the_agent() {
    let mut script = Script::new();
    script.running(vec![restarting("app", 0)]);
    script.exited("app", 1);
    let task = script.engine.task(&arn("t")).unwrap().clone();
    let exit = Exit { code: Some(1), out_of_memory: false, at: script.now };
    for (found, expected) in [
        (Found::Exited { runtime_id: "id".into(), exit }, vec!["restart app"]),
        (Found::Running { runtime_id: "id".into(), bindings: vec![] }, vec![]),
    ] {
        let mut later = Script::new();
        let containers = BTreeMap::from([("app".to_owned(), found)]);
        let actions = later.step(Event::Recovered { task: Box::new(task.clone()), containers });
        assert_eq!(actions, expected);
        assert_eq!(later.engine.task(&arn("t")).unwrap().container("app").unwrap().restarts, 1);
    }
}

#[test]
fn volumes_of_another_wait_for_its_image_and_for_nothing_else() {
    let mut taker = container("taker", true, &[]);
    taker.volumes_from = vec!["owner".to_owned()];
    // It may even have to run first.
    let owner = container("owner", true, &[("taker", ContainerCondition::Start)]);
    let mut script = Script::new();
    assert_eq!(script.accept(spec("t", vec![taker, owner])), ["image taker", "image owner"]);
    assert_eq!(script.image("taker"), [""; 0]);
    assert_eq!(script.image("owner"), ["launch taker"]);
}
