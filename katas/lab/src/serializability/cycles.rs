//! Circles of "must come before": Tarjan's strongly connected components, then a shortest circle.

use std::collections::VecDeque;

use super::{
    Anomaly, Finding,
    edges::{Dependency, Edge},
};

/// One finding for each knot: the gravest anomaly in it.
pub(super) fn findings(transactions: &[super::Transaction], edges: &[Edge]) -> Vec<Finding> {
    let knots = components(transactions.len(), edges);
    let mut findings = Vec::new();
    for knot in knots.iter().filter(|knot| knot.len() > 1) {
        let inside: Vec<&Edge> = edges
            .iter()
            .filter(|edge| knot.contains(&edge.from) && knot.contains(&edge.to))
            .collect();
        if let Some((anomaly, circle)) = gravest(&inside) {
            let name = |index: usize| &transactions[index].name;
            let mut story: Vec<_> = circle
                .iter()
                .map(|edge| format!("{} before {}: {}", name(edge.from), name(edge.to), edge.why))
                .collect();
            if let Some(first) = circle.first() {
                story.push(format!("so {} would come before itself", name(first.from)));
            }
            findings.push(Finding { anomaly, story });
        }
    }
    findings
}

/// The gravest circle among edges that are all in one knot.
fn gravest<'a>(edges: &[&'a Edge]) -> Option<(Anomaly, Vec<&'a Edge>)> {
    use Dependency::{ReadWrite, WriteRead, WriteWrite};
    if let Some(circle) = circle(edges, WriteWrite, &[WriteWrite]) {
        return Some((Anomaly::DirtyWrite, circle));
    }
    if let Some(circle) = circle(edges, WriteRead, &[WriteWrite, WriteRead]) {
        return Some((Anomaly::CircularInformationFlow, circle));
    }
    // Two who read the same and wrote on top of it: by far the most common read skew, with a name.
    let lost = edges.iter().find_map(|out| {
        let back = edges.iter().find(|back| {
            (back.from, back.to) == (out.to, out.from)
                && (out.dependency, back.dependency) == (ReadWrite, WriteWrite)
                && out.key == back.key
        });
        back.map(|back| vec![*out, *back])
    });
    if let Some(circle) = lost {
        return Some((Anomaly::LostUpdate, circle));
    }
    if let Some(circle) = circle(edges, ReadWrite, &[WriteWrite, WriteRead]) {
        return Some((Anomaly::ReadSkew, circle));
    }
    let all = [WriteWrite, WriteRead, ReadWrite];
    circle(edges, ReadWrite, &all).map(|circle| (Anomaly::WriteSkew, circle))
}

/// A shortest circle of one edge of kind `first` and a way back over edges of the kinds `rest`.
fn circle<'a>(edges: &[&'a Edge], first: Dependency, rest: &[Dependency]) -> Option<Vec<&'a Edge>> {
    let starts = edges.iter().filter(|edge| edge.dependency == first);
    let circles = starts.filter_map(|start| {
        let mut circle = vec![*start];
        circle.extend(way(edges, start.to, start.from, rest)?);
        Some(circle)
    });
    circles.min_by_key(Vec::len)
}

/// A shortest way, breadth first.
fn way<'a>(
    edges: &[&'a Edge],
    from: usize,
    to: usize,
    over: &[Dependency],
) -> Option<Vec<&'a Edge>> {
    let mut reached: Vec<(usize, Option<(usize, &'a Edge)>)> = vec![(from, None)];
    let mut queue = VecDeque::from([0]);
    while let Some(place) = queue.pop_front() {
        let at = reached[place].0;
        if at == to {
            let mut steps = Vec::new();
            let mut place = place;
            while let Some((before, edge)) = reached[place].1 {
                steps.push(edge);
                place = before;
            }
            steps.reverse();
            return Some(steps);
        }
        for edge in edges {
            let known = reached.iter().any(|(node, _)| *node == edge.to);
            if edge.from == at && !known && over.contains(&edge.dependency) {
                reached.push((edge.to, Some((place, edge))));
                queue.push_back(reached.len() - 1);
            }
        }
    }
    None
}

/// Tarjan's algorithm, with a stack of its own: a long chain of transactions must not overflow the
/// thread's. Components come in no order that matters here.
fn components(nodes: usize, edges: &[Edge]) -> Vec<Vec<usize>> {
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for edge in edges {
        next[edge.from].push(edge.to);
    }
    let mut tarjan = Tarjan {
        next,
        index: vec![None; nodes],
        low: vec![0; nodes],
        on_stack: vec![false; nodes],
        stack: Vec::new(),
        counter: 0,
        components: Vec::new(),
    };
    for node in 0..nodes {
        if tarjan.index[node].is_none() {
            tarjan.visit(node);
        }
    }
    tarjan.components
}

struct Tarjan {
    next: Vec<Vec<usize>>,
    /// In which order a node was reached.
    index: Vec<Option<usize>>,
    /// The earliest node on the stack that can be reached from it.
    low: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    counter: usize,
    components: Vec<Vec<usize>>,
}

impl Tarjan {
    fn enter(&mut self, node: usize) {
        self.index[node] = Some(self.counter);
        self.low[node] = self.counter;
        self.counter += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn visit(&mut self, root: usize) {
        self.enter(root);
        // A node, and how many of its edges were followed.
        let mut open = vec![(root, 0)];
        while let Some((node, followed)) = open.pop() {
            if let Some(to) = self.next[node].get(followed).copied() {
                open.push((node, followed + 1));
                match self.index[to] {
                    None => {
                        self.enter(to);
                        open.push((to, 0));
                    }
                    Some(index) if self.on_stack[to] => {
                        self.low[node] = self.low[node].min(index);
                    }
                    Some(_) => {}
                }
                continue;
            }
            if let Some((parent, _)) = open.last() {
                self.low[*parent] = self.low[*parent].min(self.low[node]);
            }
            if Some(self.low[node]) == self.index[node] {
                self.close(node);
            }
        }
    }

    /// All above a root on the stack are its component.
    fn close(&mut self, root: usize) {
        let mut component = Vec::new();
        while let Some(node) = self.stack.pop() {
            self.on_stack[node] = false;
            component.push(node);
            if node == root {
                break;
            }
        }
        self.components.push(component);
    }
}
