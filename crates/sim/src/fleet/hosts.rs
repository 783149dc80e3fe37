//! What agents do: the engine's actions become events some time later, and what they report goes to the control plane.

use super::plan::{Program, Wish};
use super::{Fleet, Waiting, What};
use crate::agent::Container;
use gantry_control::call::Principal;
use gantry_control::engine::Input;
use gantry_control::services::ecs::state::TaskKey;
use gantry_decide::arn::{EcsArn, EcsResource};
use gantry_decide::random::Random;
use gantry_decide::task::TransportProtocol;
use gantry_decide::task_engine::{
    Action, Event, Exit, Failure, FailureKind, NetworkBinding, Signal, Submission, SubmitFailure, TaskArn,
};
use serde_json::{Value, json};
use std::time::Duration;

impl Fleet {
    pub(super) fn restart(&mut self, agent: usize) {
        if self.agents[agent].engine.is_none() {
            let actions = self.agents[agent].start(self.now);
            self.perform(agent, actions);
            let life = self.agents[agent].life;
            self.stops_go_on(agent);
            self.hear_of_fence(agent, life);
            self.after(1..200, What::Connect { agent, life });
        }
    }

    pub(super) fn happened(&mut self, agent: usize, life: u64, event: Event) {
        if self.agents[agent].life == life {
            let actions = self.agents[agent].step(self.now, event);
            self.perform(agent, actions);
        }
    }

    pub(super) fn perform(&mut self, agent: usize, actions: Vec<Action>) {
        let life = self.agents[agent].life;
        for action in actions {
            match action {
                Action::Persist { task } => {
                    let host = &mut self.agents[agent];
                    let state = host.engine.as_ref().and_then(|engine| engine.task(&task)).cloned();
                    host.disk.extend(state.map(|state| (task, state)));
                }
                Action::PrepareImage { task, container } => self.prepare_image(agent, task, container),
                Action::SetUpNetwork { task } => {
                    let event = Event::NetworkSetUp { task, result: Ok(()) };
                    self.after(1..10, What::Happened { agent, life, event });
                }
                Action::TearDownNetwork { task } => {
                    let event = Event::NetworkTornDown { task };
                    self.after(1..100, What::Happened { agent, life, event });
                }
                Action::Launch { task, container } | Action::Restart { task, container } => {
                    self.launch(agent, task, container);
                }
                Action::Signal { task, container, signal } => {
                    self.judge_signal(agent, &key_of(&task), &task);
                    if signal == Signal::Stop && self.mishap(5) {
                        self.count("stops ignored");
                        continue;
                    }
                    self.after(1..2000, What::Exit { agent, task, container, code: 143 });
                }
                Action::RemoveContainer { task, container } => {
                    self.agents[agent].runtime.remove(&(task, container));
                }
                Action::Submit(submission) => {
                    if self.mishap(20) {
                        self.count("reports repeated");
                        let submission = submission.clone();
                        // Some are held up on their way, and arrive long after their repetition.
                        let late = [500, 60_000][self.random.below(2)];
                        self.after(1..late, What::Submit { agent, life, submission });
                    }
                    self.after(1..50, What::Submit { agent, life, submission });
                }
                Action::Forget { task } => {
                    self.agents[agent].told.remove(&task);
                    self.agents[agent].disk.remove(&task);
                }
                Action::WakeAt(at) => {
                    let at = at.max(self.now + Duration::from_millis(1));
                    self.at(at, What::AgentWake { agent, life });
                }
            }
        }
    }

    fn prepare_image(&mut self, agent: usize, task: TaskArn, container: String) {
        let life = self.agents[agent].life;
        let is_out = self.no_images > self.now;
        let event = if is_out || container == Program::Missing.name() || self.mishap(40) {
            let failure = Failure::new(FailureKind::CannotPullContainerError, "no such image");
            Event::ImageFailed { task, container, failure, pull: None }
        } else {
            Event::ImageReady { task, container, digest: None, pull: None }
        };
        self.after(5..self.plan.pull_millis, What::Happened { agent, life, event });
    }

    /// Starts a container. What the durable state does not know must never run.
    fn launch(&mut self, agent: usize, task: TaskArn, container: String) {
        let key = key_of(&task);
        let state = self.published.snapshot(&self.scope);
        assert!(state.ecs.task(&key).is_some(), "{task} is started, and nobody knows it");
        assert!(
            !self.agents[agent].told.contains(&task),
            "{task} is started after its agent was told to stop it"
        );
        let life = self.agents[agent].life;
        if self.agents[agent].fenced {
            let failure = Failure::new(FailureKind::TaskStateError, "the lease is over");
            let event = Event::ContainerFailed { task, container, failure };
            return self.after(1..2, What::Happened { agent, life, event });
        }
        if container == Program::Broken.name() {
            let failure = Failure::new(FailureKind::CannotStartContainerError, "exec format error");
            let event = Event::ContainerFailed { task, container, failure };
            return self.after(5..200, What::Happened { agent, life, event });
        }
        let here = self.agents[agent].runtime.get(&(task.clone(), container.clone()));
        assert!(here != Some(&Container::Running), "{task} is started twice");
        self.report.launched += 1;
        self.agents[agent].runtime.insert((task.clone(), container.clone()), Container::Running);
        let bindings = match container == Wish::SITE {
            true => vec![NetworkBinding {
                bind_ip: "0.0.0.0".to_owned(),
                container_port: 80,
                host_port: self.give_port(agent, &task, &container),
                protocol: TransportProtocol::Tcp,
                more: 0,
            }],
            false => Vec::new(),
        };
        let event = Event::ContainerStarted { task, container, runtime_id: "r".to_owned(), bindings };
        self.after(5..200, What::Happened { agent, life, event });
    }

    pub(super) fn exit(&mut self, agent: usize, task: TaskArn, container: String, code: i32) {
        let exit = Exit { code: Some(code), out_of_memory: false, at: self.now };
        let host = &mut self.agents[agent];
        let Some(state) = host.runtime.get_mut(&(task.clone(), container.clone())) else { return };
        if *state == Container::Running {
            *state = Container::Exited(exit);
            let life = host.life;
            // Not before it is known to have started.
            let event = Event::ContainerExited { task, container, exit };
            self.after(250..300, What::Happened { agent, life, event });
        }
    }

    pub(super) fn submit(&mut self, agent: usize, life: u64, submission: &Submission) {
        let (task, id, status) = (submission.task.clone(), submission.id, submission.status);
        let no_way = self.agents[agent].cut_off.max(self.server_down) > self.now;
        if no_way || self.mishap(10) {
            self.count("reports lost");
            let event = Event::SubmitFailed { task, id, failure: SubmitFailure::Later };
            return self.after(10..1000, What::Happened { agent, life, event });
        }
        let containers: Vec<Value> = submission
            .containers
            .iter()
            .map(|change| {
                json!({"containerName": change.name, "status": change.status.as_str(),
                "exitCode": change.exit_code, "networkBindings": bindings(&change.bindings)})
            })
            .collect();
        let request = json!({"task": task.0, "status": submission.status.as_str(), "reason": submission.reason,
                             "containers": containers});
        let input = self.prepare("SubmitTaskStateChange", &request, Principal::Agent);
        if let Input::Call { id: call, .. } = &input {
            self.waiting.insert(*call, Waiting::Report { agent, life, task, id, status });
        }
        self.step(input);
    }

    /// The answer to a report arrives, or gets lost, and the agent reports once more.
    pub(super) fn answered(&mut self, agent: usize, life: u64, task: TaskArn, id: u64) {
        let back = self.agents[agent].cut_off;
        if back > self.now || self.mishap(10) {
            self.count("answers lost");
            let event = Event::SubmitFailed { task, id, failure: SubmitFailure::Later };
            return self.at(back.max(self.now), What::Happened { agent, life, event });
        }
        self.happened(agent, life, Event::Submitted { task, id });
    }

    /// A running container of a host, if it has one.
    pub(super) fn any_container(&self, agent: usize, random: &mut dyn Random) -> Option<(TaskArn, String)> {
        let running = self.agents[agent].runtime.iter();
        let running: Vec<_> =
            running.filter(|(_, container)| **container == Container::Running).map(|(key, _)| key).collect();
        (!running.is_empty()).then(|| running[random.below(running.len())].clone())
    }
}

pub(super) fn key_of(task: &TaskArn) -> TaskKey {
    let EcsResource::Task(cluster, id) = task.0.parse::<EcsArn>().expect("an ARN").resource else {
        panic!("{task} is no task");
    };
    TaskKey { cluster, id }
}

fn bindings(bindings: &[NetworkBinding]) -> Value {
    let one = |binding: &NetworkBinding| {
        json!({"bindIP": binding.bind_ip, "containerPort": binding.container_port,
            "hostPort": binding.host_port, "protocol": "tcp"})
    };
    bindings.iter().map(one).collect()
}
