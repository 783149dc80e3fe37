//! Rules on how containers refer to each other: links, volumes-from and dependencies.

use super::DefinitionError;
use crate::task::definition::{ContainerDefinition, TaskDefinition};
use crate::task::kinds::ContainerCondition;
use std::collections::BTreeMap;

pub fn check(definition: &TaskDefinition) -> Result<(), DefinitionError> {
    let mut links = Graph::default();
    let mut dependencies = Graph::default();
    for container in &definition.container_definitions {
        let name = container.name.as_str();
        for link in container.links.iter().flatten() {
            let target = link.split_once(':').map_or(link.as_str(), |(target, _alias)| target);
            find(definition, container, "links", target)?;
            links.entry(name).or_default().push(target);
        }
        for from in &container.volumes_from {
            find(definition, container, "volumesFrom", &from.source_container)?;
        }
        for dependency in container.depends_on.iter().flatten() {
            let target = find(definition, container, "dependsOn", dependency.container_name.as_str())?;
            match dependency.condition {
                ContainerCondition::Start => {}
                ContainerCondition::Complete | ContainerCondition::Success if target.essential => {
                    return Err(DefinitionError::EssentialDependency);
                }
                ContainerCondition::Complete | ContainerCondition::Success => {}
                ContainerCondition::Healthy if target.health_check.is_none() => {
                    let name = target.name.to_string();
                    return Err(DefinitionError::DependencyWithoutHealthCheck { name });
                }
                ContainerCondition::Healthy => {}
            }
            dependencies.entry(name).or_default().push(target.name.as_str());
        }
    }
    if cycle(&links).is_some() {
        return Err(DefinitionError::LinkCycle);
    }
    match cycle(&dependencies) {
        Some(path) => {
            let path = path.into_iter().map(str::to_owned).collect();
            Err(DefinitionError::DependencyCycle { path })
        }
        None => Ok(()),
    }
}

fn find<'a>(
    definition: &'a TaskDefinition,
    container: &ContainerDefinition,
    setting: &'static str,
    target: &str,
) -> Result<&'a ContainerDefinition, DefinitionError> {
    if container.name.as_str() == target {
        return Err(DefinitionError::SelfReference { container: target.to_owned(), setting });
    }
    definition.container(target).ok_or_else(|| DefinitionError::UnknownContainer {
        container: container.name.to_string(),
        setting,
        name: target.chars().take(255).collect(),
    })
}

type Graph<'a> = BTreeMap<&'a str, Vec<&'a str>>;

/// A cycle, as the nodes on it with the first repeated at the end. Depth is bounded by the number of containers.
fn cycle<'a>(graph: &Graph<'a>) -> Option<Vec<&'a str>> {
    fn visit<'a>(graph: &Graph<'a>, node: &'a str, path: &mut Vec<&'a str>, done: &mut Vec<&'a str>) -> bool {
        if let Some(start) = path.iter().position(|n| *n == node) {
            path.drain(..start);
            path.push(node);
            return true;
        }
        if done.contains(&node) {
            return false;
        }
        path.push(node);
        for next in graph.get(node).into_iter().flatten() {
            if visit(graph, next, path, done) {
                return true;
            }
        }
        path.pop();
        done.push(node);
        false
    }
    let mut done = Vec::new();
    graph.keys().find_map(|node| {
        let mut path = Vec::new();
        visit(graph, node, &mut path, &mut done).then_some(path)
    })
}
