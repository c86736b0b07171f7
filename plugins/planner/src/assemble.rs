//! One plan of all documents: names are given and looked up, and what the host would refuse is shown where it stands.

use std::collections::BTreeMap;

use petgraph::graph::{DiGraph, NodeIndex};
use skep_sdk::{Failure, Node, Payload, Plan, Slot, payload::MAX_INLINE};

use crate::{
    document::{Document, Mistake},
    draft::{Contents, Draft, Word, is_name, is_role, slug},
    json, markdown,
};

/// The most nodes that the host takes in one plan, and the most that one of them may wait for.
const MAX_NODES: usize = 1000;
/// The most roles of a node.
const MAX_ROLES: usize = 16;
/// The most bytes of a description.
const MAX_DESCRIPTION: usize = 4096;
/// Who does what says nothing else.
const ROLE: &str = "worker";

/// A draft among all: the index of its document, and its index there.
type At = (usize, usize);

/// The documents, read, and what their tasks are called.
struct Assembly<'a> {
    documents: &'a [Document],
    contents: Vec<Contents>,
    /// Every draft's name, in the order of the documents.
    names: BTreeMap<At, String>,
    by_name: BTreeMap<String, At>,
}

/// The plan of these documents.
pub(crate) fn plan(documents: &[Document]) -> Result<Plan, Failure> {
    let mut contents = Vec::new();
    for document in documents {
        let read = if document.is_json() {
            json::read(&document.text)
        } else {
            markdown::read(&document.text)
        };
        contents.push(read.map_err(|mistake| document.failure(&mistake))?);
    }
    let mut assembly = Assembly {
        documents,
        contents,
        names: BTreeMap::new(),
        by_name: BTreeMap::new(),
    };
    let made = assembly.plan();
    made.map_err(|(document, mistake)| match documents.get(document) {
        Some(document) => document.failure(&mistake),
        None => Failure::never(mistake.message),
    })
}

/// A mistake and the index of the document that it is in; one behind the last where it is in none.
type Wrong = (usize, Mistake);

impl Assembly<'_> {
    fn plan(&mut self) -> Result<Plan, Wrong> {
        self.name_all()?;
        let open: Vec<At> = self
            .drafts()
            .filter(|(_, draft)| !draft.is_done)
            .map(|(at, _)| at)
            .collect();
        if open.is_empty() {
            return Err((self.documents.len(), Mistake::new(self.nothing(), 0..0)));
        }
        if let Some(beyond) = open.get(MAX_NODES) {
            let message = format!("a plan has at most {MAX_NODES} tasks, these are {}", open.len());
            return Err(self.wrong(*beyond, message));
        }
        let nodes = open
            .iter()
            .map(|at| self.node(*at).map_err(|mistake| (at.0, mistake)))
            .collect::<Result<Vec<_>, _>>()?;
        self.refuse_two_outputs()?;
        self.refuse_cycles(&open, &nodes)?;
        Ok(Plan {
            verify_before_next: self.contents.iter().any(|contents| contents.verify_before_next),
            ..Plan::new(nodes)
        })
    }

    fn drafts(&self) -> impl Iterator<Item = (At, &Draft)> {
        let numbered = self.contents.iter().enumerate();
        numbered.flat_map(|(document, contents)| {
            let drafts = contents.drafts.iter().enumerate();
            drafts.map(move |(index, draft)| ((document, index), draft))
        })
    }

    fn draft(&self, at: At) -> Option<&Draft> {
        self.contents.get(at.0)?.drafts.get(at.1)
    }

    fn name(&self, at: At) -> &str {
        self.names.get(&at).map_or("", String::as_str)
    }

    fn wrong(&self, at: At, message: impl Into<String>) -> Wrong {
        let place = self.draft(at).map_or(0..0, |draft| draft.place.clone());
        (at.0, Mistake::new(message, place))
    }

    /// Why there is nothing to plan.
    fn nothing(&self) -> String {
        let names: Vec<&str> = self.documents.iter().map(|document| document.name.as_str()).collect();
        if self.drafts().next().is_some() {
            return format!(
                "nothing is left to be done: every box in {} is checked",
                names.join(", ")
            );
        }
        let whose = match names.as_slice() {
            [] => "there is no plan document: give one along as a note, or as the input".to_owned(),
            names => format!("no task in {}", names.join(", ")),
        };
        format!(
            "{whose}; a task is a list item with a box (`- [ ] name: description`), a numbered one, or a node in JSON"
        )
    }

    /// Names that are said come first, so that one that is made up cannot take theirs.
    fn name_all(&mut self) -> Result<(), Wrong> {
        let mut names = BTreeMap::new();
        let mut by_name = BTreeMap::<String, At>::new();
        let mut nameless = Vec::new();
        for (at, draft) in self.drafts() {
            let Some(name) = &draft.name else {
                nameless.push((at, slug(&draft.description)));
                continue;
            };
            if !is_name(&name.text) {
                let message = "a name is 1 to 64 of `a-z 0-9 - _ . /`, beginning and ending with a letter or digit";
                return Err((at.0, name.mistake(message)));
            }
            if let Some(first) = by_name.insert(name.text.clone(), at) {
                let message = format!(
                    "two tasks are called `{}`; the first is at {}",
                    name.text,
                    self.position(first)
                );
                return Err((at.0, name.mistake(message)));
            }
            names.insert(at, name.text.clone());
        }
        let mut next = BTreeMap::<String, usize>::new();
        for (at, slug) in nameless {
            let count = next.entry(slug.clone()).or_insert(1);
            let mut name = slug.clone();
            while by_name.contains_key(&name) {
                *count += 1;
                name = format!("{slug}-{count}");
            }
            by_name.insert(name.clone(), at);
            names.insert(at, name);
        }
        (self.names, self.by_name) = (names, by_name);
        Ok(())
    }

    fn position(&self, at: At) -> String {
        let place = self.draft(at).map_or(0, |draft| {
            draft.name.as_ref().map_or(draft.place.start, |name| name.place.start)
        });
        self.documents
            .get(at.0)
            .map_or_else(String::new, |document| document.position(place))
    }

    fn node(&self, at: At) -> Result<Node, Mistake> {
        let Some(draft) = self.draft(at) else {
            return Err(Mistake::new("the task is not there", 0..0));
        };
        let wrong = |message: String| Mistake::new(message, draft.place.clone());
        if draft.description.len() > MAX_DESCRIPTION {
            return Err(wrong(format!(
                "a description has at most {MAX_DESCRIPTION} bytes, this one {}",
                draft.description.len()
            )));
        }
        let input = draft.input.as_ref().map_or("{}", |input| &input.text);
        if input.len() > MAX_INLINE {
            return Err(wrong(format!(
                "an input has at most {MAX_INLINE} bytes, this one {}",
                input.len()
            )));
        }
        Ok(Node {
            roles: roles(draft)?,
            dependencies: self.dependencies(at, draft)?,
            check: draft.check,
            optional: draft.optional,
            integrates: draft.integrates,
            retry: draft.retry.clone(),
            timeouts: draft.timeouts,
            plan: draft.plan,
            lane: draft.lane.as_ref().map(lane).transpose()?,
            priority: draft.priority,
            approval: draft.approval,
            note: self.note(at, draft)?,
            output: draft.output.clone(),
            slots: self.slots(at, draft)?,
            ..Node::new(
                self.name(at),
                &draft.description,
                ROLE,
                Payload::Inline(input.as_bytes().to_vec()),
            )
        })
    }

    /// What it joins and what it comes after, each once.
    fn dependencies(&self, at: At, draft: &Draft) -> Result<Vec<String>, Mistake> {
        let mut waits: Vec<At> = draft.parts.iter().map(|part| (at.0, *part)).collect();
        for word in &draft.after {
            match self.by_name.get(&word.text) {
                Some(task) => waits.push(*task),
                None => waits.extend(self.phase(at, word)?),
            }
        }
        let mut names = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for task in waits {
            if seen.insert(task) && self.draft(task).is_some_and(|task| !task.is_done) {
                names.push(self.name(task).to_owned());
            }
        }
        Ok(names)
    }

    /// The tasks of a phase: of this document's, else of any.
    fn phase(&self, at: At, word: &Word) -> Result<Vec<At>, Mistake> {
        let of = |document: usize| {
            let phases = self.contents.get(document).map(|contents| contents.phases.iter());
            let named = phases.into_iter().flatten().filter(|(name, _)| *name == word.text);
            named.map(move |(_, members)| members.iter().map(move |index| (document, *index)))
        };
        let mut found: Vec<_> = of(at.0).collect();
        if found.is_empty() {
            found = (0..self.contents.len()).flat_map(of).collect();
        }
        if found.is_empty() {
            return Err(word.mistake(format!(
                "`{}` waits for `{}`, which is neither a task nor a phase",
                self.name(at),
                word.text
            )));
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn slots(&self, at: At, draft: &Draft) -> Result<Vec<Slot>, Mistake> {
        let slot = |slot: &crate::draft::Slot| {
            let whose = self.by_name.get(&slot.node.text).copied();
            let Some(whose) = whose.and_then(|whose| self.draft(whose)) else {
                let message = format!(
                    "`{}` takes the output of `{}`, which is no task",
                    self.name(at),
                    slot.node.text
                );
                return Err(slot.node.mistake(message));
            };
            if whose.is_done {
                let message = format!("`{}` is done already, so its output is not there", slot.node.text);
                return Err(slot.node.mistake(message));
            }
            Ok(Slot {
                field: slot.field.clone(),
                node: slot.node.text.clone(),
                schema: slot.schema.clone(),
            })
        };
        draft.slots.iter().map(slot).collect()
    }

    /// The note that a task comes from: the one that is said, else its document.
    fn note(&self, at: At, draft: &Draft) -> Result<Option<String>, Mistake> {
        let mut notes = self.documents.iter().filter(|document| document.is_note);
        if let Some(said) = &draft.note {
            if !notes.any(|note| note.name == said.text) {
                return Err(said.mistake(format!("no note is called `{}`", said.text)));
            }
            return Ok(Some(said.text.clone()));
        }
        let document = self.documents.get(at.0).filter(|document| document.is_note);
        if document.is_none() && !draft.integrates && notes.next().is_some() {
            let message = format!(
                "`{}` comes from no note; where there are notes, each task names one",
                self.name(at)
            );
            return Err(Mistake::new(message, draft.place.clone()));
        }
        Ok(document.map(|document| document.name.clone()))
    }

    fn refuse_two_outputs(&self) -> Result<(), Wrong> {
        let mut integrates = self.drafts().filter(|(_, draft)| draft.integrates && !draft.is_done);
        if let (Some((first, _)), Some((second, _))) = (integrates.next(), integrates.next()) {
            let (name, other) = (self.name(first), self.name(second));
            let message = format!("`{name}` and `{other}` both integrate; a plan has one output");
            return Err(self.wrong(second, message));
        }
        Ok(())
    }

    fn refuse_cycles(&self, open: &[At], nodes: &[Node]) -> Result<(), Wrong> {
        let mut graph = DiGraph::<At, ()>::with_capacity(nodes.len(), nodes.len());
        let index: BTreeMap<At, NodeIndex> = open.iter().map(|at| (*at, graph.add_node(*at))).collect();
        for (at, node) in open.iter().zip(nodes) {
            let waits = node.dependencies.iter().chain(node.slots.iter().map(|slot| &slot.node));
            for dependency in waits {
                let from = self.by_name.get(dependency).and_then(|at| index.get(at));
                if let (Some(from), Some(to)) = (from, index.get(at)) {
                    graph.update_edge(*from, *to, ());
                }
            }
        }
        let Err(cycle) = petgraph::algo::toposort(&graph, None) else {
            return Ok(());
        };
        let mut cycle: Vec<At> = cycle_of(&graph, cycle.node_id());
        // Told from the task that stands first, so that the message does not depend on how it was found.
        let first = (0..cycle.len()).min_by_key(|index| cycle.get(*index).copied());
        cycle.rotate_left(first.unwrap_or_default());
        let Some(first) = cycle.first().copied() else {
            return Ok(());
        };
        cycle.push(first);
        let names: Vec<&str> = cycle.iter().map(|at| self.name(*at)).collect();
        Err(self.wrong(first, format!("the plan has a cycle: {}", names.join(" → "))))
    }
}

/// The cycle that a node lies on, each node once.
fn cycle_of(graph: &DiGraph<At, ()>, start: NodeIndex) -> Vec<At> {
    let path = graph.neighbors(start).find_map(|next| {
        petgraph::algo::astar(graph, next, |node| node == start, |_| 1_u32, |_| 0).map(|(_, path)| path)
    });
    let nodes = path.into_iter().flatten();
    nodes.filter_map(|node| graph.node_weight(node)).copied().collect()
}

fn roles(draft: &Draft) -> Result<Vec<String>, Mistake> {
    if draft.roles.is_empty() {
        return Ok(vec![ROLE.to_owned()]);
    }
    if let Some(beyond) = draft.roles.get(MAX_ROLES) {
        return Err(beyond.mistake(format!("a task has at most {MAX_ROLES} roles")));
    }
    let role = |word: &Word| {
        if is_role(&word.text) {
            return Ok(word.text.clone());
        }
        Err(word.mistake("a role is 1 to 64 of `a-z 0-9 - _ . =`, beginning and ending with a letter or digit"))
    };
    draft.roles.iter().map(role).collect()
}

fn lane(word: &Word) -> Result<String, Mistake> {
    if is_name(&word.text) {
        return Ok(word.text.clone());
    }
    Err(word.mistake("a lane is named as tasks are: 1 to 64 of `a-z 0-9 - _ . /`"))
}
