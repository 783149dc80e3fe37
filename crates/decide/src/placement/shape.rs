//! The candidates for one kind of request, ordered so that the best is at hand: instances with the same rank lie in one
//! bag, bags are sorted by rank.
//!
//! Where tasks are spread over an attribute, a placement changes the rank of every instance with the same value. So
//! instances are kept by cells: in a cell all have the same values of the attributes, and what a cell counts enters only
//! when cells are compared.

use super::host::{Burdened, Profile, Site};
use super::{Constraint, Refusal, Request, Strategy};
use crate::random::Random;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// ECS's own limit. Strategies beyond it are not looked at.
const STRATEGIES_MAX: usize = 5;

/// How good an instance is by each strategy in turn: the smallest wins. Within a cell the places of attributes are zero.
type Rank = [i64; STRATEGIES_MAX];

/// What one strategy looks at.
#[derive(Clone, Copy, Debug)]
enum Measure {
    Instance,
    /// An index of [`Shape::spreads`].
    Attribute(usize),
    Cpu,
    Memory,
}

/// An attribute over which tasks are spread. Instances without it are a bucket of their own.
#[derive(Clone, Debug)]
struct Spread {
    attribute: String,
    buckets: BTreeMap<Option<Option<String>>, usize>,
    /// By bucket: tasks of the group on its instances, whether or not these can take more.
    tasks: Vec<i64>,
}

/// Instances with the same values of all attributes that are spread over.
#[derive(Clone, Debug)]
struct Cell {
    /// One of each spread.
    buckets: Vec<usize>,
    order: BTreeMap<Rank, u32>,
}

/// Candidates of one cell and rank.
#[derive(Clone, Debug)]
struct Bag {
    rank: Rank,
    hosts: Vec<u32>,
}

/// What is known of one host.
#[derive(Clone, Copy, Debug)]
struct Known {
    cell: u32,
    bag: u32,
    /// Where it lies in the bag.
    position: u32,
    /// Of the group, as the pool counts.
    own: u32,
    /// The same with `more`, as counted in the cell's buckets.
    tasks: u32,
    /// Placed by this shape and not yet seen in the pool.
    more: u32,
    /// Passes the checks of its profile.
    fits: bool,
    /// Stands in [`Shape::noted`].
    noted: bool,
}

/// No cell: the host is not there. No bag: it cannot take a task.
const NONE: u32 = u32::MAX;

impl Known {
    const NOTHING: Known =
        Known { cell: NONE, bag: NONE, position: 0, own: 0, tasks: 0, more: 0, fits: false, noted: false };
}

/// What happened to an instance, as a shape is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// A task of the shape's group.
    Came,
    Went,
    /// Tasks of other groups.
    OfOthers,
    /// Whatever was known does not hold any more.
    Anew {
        own: u32,
        profile_changed: bool,
    },
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    request: Request,
    /// Whether the group has a say; where not, requests of other groups are of the same shape.
    by_group: bool,
    measures: Vec<Measure>,
    spreads: Vec<Spread>,
    cells: Vec<Cell>,
    cell_numbers: BTreeMap<Vec<usize>, u32>,
    bags: Vec<Bag>,
    empty_bags: Vec<u32>,
    /// By the host's number.
    hosts: Vec<Known>,
    /// Hosts with `more` on them.
    burdened: Vec<u32>,
    /// Hosts of which something was noted and that were not looked at since.
    noted: Vec<u32>,
    /// How many changes of the pool it has looked at.
    up_to: u64,
}

impl Shape {
    pub fn new(request: Request) -> Shape {
        let (mut measures, mut spreads) = (Vec::new(), Vec::new());
        // Nothing after a random strategy has a say: random leaves no equals.
        let ranked = request.strategies.iter().take_while(|strategy| **strategy != Strategy::Random);
        for strategy in ranked.take(STRATEGIES_MAX) {
            measures.push(match strategy {
                Strategy::SpreadAttribute(name) => {
                    spreads.push(Spread {
                        attribute: name.clone(),
                        buckets: BTreeMap::new(),
                        tasks: Vec::new(),
                    });
                    Measure::Attribute(spreads.len() - 1)
                }
                Strategy::SpreadInstance => Measure::Instance,
                Strategy::BinpackCpu => Measure::Cpu,
                Strategy::BinpackMemory => Measure::Memory,
                Strategy::Random => break,
            });
        }
        let by_group = measures.iter().any(|m| matches!(m, Measure::Instance | Measure::Attribute(_)))
            || request.constraints.iter().any(|constraint| match constraint {
                Constraint::DistinctInstance => true,
                Constraint::MemberOf(query) => query.depends_on_tasks(),
            });
        Shape {
            request,
            by_group,
            measures,
            spreads,
            cells: Vec::new(),
            cell_numbers: BTreeMap::new(),
            bags: Vec::new(),
            empty_bags: Vec::new(),
            hosts: Vec::new(),
            burdened: Vec::new(),
            noted: Vec::new(),
            up_to: 0,
        }
    }

    /// A shape for a request that asks the same of an instance's profile as this one's, and so need not look at any
    /// profile that this one has looked at.
    pub fn alike(&self, request: &Request) -> Option<Shape> {
        let own = &self.request;
        let same = own.strategies == request.strategies
            && own.attributes == request.attributes
            && own.constraints == request.constraints;
        same.then(|| {
            let empty = |spread: &Spread| Spread { tasks: vec![0; spread.tasks.len()], ..spread.clone() };
            let seated = |known: &Known| Known { cell: known.cell, fits: known.fits, ..Known::NOTHING };
            let cell = |cell: &Cell| Cell { buckets: cell.buckets.clone(), order: BTreeMap::new() };
            Shape {
                spreads: self.spreads.iter().map(empty).collect(),
                cells: self.cells.iter().map(cell).collect(),
                cell_numbers: self.cell_numbers.clone(),
                hosts: self.hosts.iter().map(seated).collect(),
                ..Shape::new(request.clone())
            }
        })
    }

    /// Whether a request has these candidates in this order.
    pub fn serves(&self, request: &Request) -> bool {
        let own = &self.request;
        own.cpu == request.cpu
            && own.memory == request.memory
            && own.gpus == request.gpus
            && (!self.by_group || own.group == request.group)
            && own.ports == request.ports
            && own.strategies == request.strategies
            && own.attributes == request.attributes
            && own.constraints == request.constraints
    }

    /// Whether it has to be told of tasks of its own group.
    pub fn is_by_group(&self) -> bool {
        self.by_group
    }

    pub fn is_of(&self, group: &str) -> bool {
        self.request.group == group
    }

    pub fn group(&self) -> &str {
        &self.request.group
    }

    pub fn up_to(&self) -> u64 {
        self.up_to
    }

    pub fn set_up_to(&mut self, changes: u64) {
        self.up_to = changes;
    }

    /// Whether most cells are of values that no host has any more.
    pub fn is_overgrown(&self) -> bool {
        self.cells.len() > 2 * self.hosts.len() + 64
    }

    /// Why a host that was looked at does not take one more task, if it does not.
    pub fn refuses(&self, number: u32, site: Site<'_>) -> Option<Refusal> {
        let known = self.hosts.get(number as usize).filter(|known| known.fits);
        known.map_or_else(
            || site.profile.refuses(&self.request),
            |known| self.burdened(known, site).refuses_now(),
        )
    }

    /// A host with what this shape has put on it.
    fn burdened<'a>(&'a self, known: &Known, site: Site<'a>) -> Burdened<'a> {
        let burdened = site.with(&self.request, known.more);
        if self.by_group { burdened.knowing(known.own) } else { burdened }
    }

    /// Counts what happened to a host, which is to be looked at once all of it is counted: much of what comes goes again.
    pub fn note(&mut self, number: u32, news: News) {
        let index = number as usize;
        if index >= self.hosts.len() {
            self.hosts.resize(index + 1, Known::NOTHING);
        }
        let known = &mut self.hosts[index];
        if !known.noted {
            known.noted = true;
            self.noted.push(number);
        }
        match news {
            News::Came => known.own += 1,
            News::Went => known.own = known.own.saturating_sub(1),
            News::OfOthers => {}
            News::Anew { own, profile_changed } => {
                known.own = own;
                if profile_changed {
                    self.unseat(number);
                }
            }
        }
    }

    /// A host that is to be looked at.
    pub fn next_noted(&mut self) -> Option<u32> {
        self.noted.pop()
    }

    /// Looks at a host of which something was noted. Without it the number is vacant.
    pub fn look(&mut self, number: u32, site: Option<Site<'_>>) {
        let index = number as usize;
        self.hosts[index].noted = false;
        let Some(site) = site else { return self.unseat(number) };
        if self.hosts[index].cell == NONE {
            let cell = self.cell_of(site.profile);
            let fits = site.profile.refuses(&self.request).is_none();
            let known = &mut self.hosts[index];
            (known.cell, known.fits) = (cell, fits);
        }
        let known = self.hosts[index];
        let burdened = self.burdened(&known, site);
        let tasks = if self.by_group { burdened.tasks_of_group() } else { 0 };
        let (free_cpu, free_memory) = (burdened.free_cpu(), burdened.free_memory());
        let takes = known.fits && burdened.refuses_now().is_none();
        if tasks != known.tasks {
            self.count(known.cell, i64::from(tasks) - i64::from(known.tasks));
            self.hosts[index].tasks = tasks;
        }
        let mut rank = Rank::default();
        for (value, measure) in rank.iter_mut().zip(&self.measures) {
            *value = match measure {
                Measure::Instance => i64::from(tasks),
                Measure::Attribute(_) => 0,
                Measure::Cpu => free_cpu,
                Measure::Memory => free_memory,
            };
        }
        if takes {
            self.put_in_bag(number, rank);
        } else {
            self.take_out_of_bag(number);
        }
    }

    /// Chooses the best host; among equals at random.
    pub fn choose(&self, random: &mut dyn Random) -> Option<u32> {
        let mut best: Option<Rank> = None;
        let (mut equals, mut count): (Vec<u32>, usize) = (Vec::new(), 0);
        for cell in &self.cells {
            let Some((rank, bag)) = cell.order.first_key_value() else { continue };
            let rank = self.rank_among_cells(cell, *rank);
            match best.map_or(Ordering::Less, |best| rank.cmp(&best)) {
                Ordering::Greater => continue,
                Ordering::Equal => {}
                Ordering::Less => {
                    best = Some(rank);
                    count = 0;
                    equals.clear();
                }
            }
            equals.push(*bag);
            count += self.bags[*bag as usize].hosts.len();
        }
        if count == 0 {
            return None;
        }
        let mut chosen = random.below(count);
        for bag in equals {
            let hosts = &self.bags[bag as usize].hosts;
            match hosts.get(chosen) {
                Some(number) => return Some(*number),
                None => chosen -= hosts.len(),
            }
        }
        None
    }

    /// Counts a task on a host that was chosen, until the pool counts it.
    pub fn put_more(&mut self, number: u32, site: Option<Site<'_>>) {
        let known = &mut self.hosts[number as usize];
        if known.more == 0 {
            self.burdened.push(number);
        }
        known.more += 1;
        self.look(number, site);
    }

    /// Counts only what the pool counts.
    pub fn forget_more(&mut self) {
        for number in std::mem::take(&mut self.burdened) {
            self.hosts[number as usize].more = 0;
            self.note(number, News::OfOthers);
        }
    }

    fn rank_among_cells(&self, cell: &Cell, mut rank: Rank) -> Rank {
        for (value, measure) in rank.iter_mut().zip(&self.measures) {
            if let Measure::Attribute(spread) = measure {
                *value = self.spreads[*spread].tasks[cell.buckets[*spread]];
            }
        }
        rank
    }

    fn cell_of(&mut self, profile: &Profile) -> u32 {
        let bucket = |spread: &mut Spread| {
            let value = profile.attributes.get(&spread.attribute).cloned();
            let next = spread.tasks.len();
            let bucket = *spread.buckets.entry(value).or_insert(next);
            if bucket == next {
                spread.tasks.push(0);
            }
            bucket
        };
        let buckets: Vec<usize> = self.spreads.iter_mut().map(bucket).collect();
        let next = self.cells.len() as u32;
        let number = *self.cell_numbers.entry(buckets.clone()).or_insert(next);
        if number == next {
            self.cells.push(Cell { buckets, order: BTreeMap::new() });
        }
        number
    }

    fn count(&mut self, cell: u32, tasks: i64) {
        let cell = &self.cells[cell as usize];
        for (spread, bucket) in self.spreads.iter_mut().zip(&cell.buckets) {
            spread.tasks[*bucket] += tasks;
        }
    }

    /// Forgets what is known of a host, but not what was put on it.
    pub fn unseat(&mut self, number: u32) {
        let Some(known) = self.hosts.get(number as usize).copied() else { return };
        self.take_out_of_bag(number);
        if known.cell != NONE {
            self.count(known.cell, -i64::from(known.tasks));
        }
        self.hosts[number as usize] =
            Known { own: known.own, more: known.more, noted: known.noted, ..Known::NOTHING };
    }

    fn put_in_bag(&mut self, number: u32, rank: Rank) {
        let known = self.hosts[number as usize];
        if known.bag != NONE && self.bags[known.bag as usize].rank == rank {
            return;
        }
        self.take_out_of_bag(number);
        let (bags, empty) = (&mut self.bags, &mut self.empty_bags);
        let bag = *self.cells[known.cell as usize].order.entry(rank).or_insert_with(|| match empty.pop() {
            Some(bag) => {
                bags[bag as usize].rank = rank;
                bag
            }
            None => {
                bags.push(Bag { rank, hosts: Vec::new() });
                bags.len() as u32 - 1
            }
        });
        let hosts = &mut self.bags[bag as usize].hosts;
        let known = &mut self.hosts[number as usize];
        (known.bag, known.position) = (bag, hosts.len() as u32);
        hosts.push(number);
    }

    fn take_out_of_bag(&mut self, number: u32) {
        let known = self.hosts[number as usize];
        if known.bag == NONE {
            return;
        }
        self.hosts[number as usize].bag = NONE;
        let bag = &mut self.bags[known.bag as usize];
        bag.hosts.swap_remove(known.position as usize);
        if let Some(moved) = bag.hosts.get(known.position as usize) {
            self.hosts[*moved as usize].position = known.position;
        }
        if bag.hosts.is_empty() {
            self.cells[known.cell as usize].order.remove(&bag.rank);
            self.empty_bags.push(known.bag);
        }
    }
}
