//! Placing the nodes of a graph: layers from left to right, from callers to what they call.

use petgraph::{
    Direction,
    algo::{greedy_feedback_arc_set, toposort},
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};

/// Where everything goes, in units of the figure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placement {
    /// Left upper corner of each node, by index.
    pub(super) nodes: Vec<(i32, i32)>,
    /// For each edge, by index: the points between its ends that it should pass, from source to target.
    pub(super) bends: Vec<Vec<(i32, i32)>>,
    /// Size of the whole.
    pub(super) size: (i32, i32),
}

/// Room that a node takes and that is left between nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) gap_x: i32,
    pub(super) gap_y: i32,
}

/// A way of placing a graph. It must depend on nothing but its input.
pub(super) trait Layout {
    /// Places every node; edges from a node to itself need no bends.
    fn place<N, E>(&self, graph: &DiGraph<N, E>, cell: Cell) -> Placement;
}

/// Layers by longest path, order by barycentres, positions by averaging neighbours: Sugiyama's method in whole numbers.
pub(super) struct Layered;

/// Sweeps over the layers; more changed nothing on graphs of up to 200 nodes.
const SWEEPS: usize = 12;

impl Layout for Layered {
    fn place<N, E>(&self, graph: &DiGraph<N, E>, cell: Cell) -> Placement {
        let mut net = Net::new(graph);
        net.order();
        net.straighten(cell);
        net.placement(graph.node_count(), cell)
    }
}

/// The graph with its long edges cut into steps of one layer. Items are nodes first, then steps.
struct Net {
    layer: Vec<usize>,
    /// Neighbours one layer to the left and to the right.
    left: Vec<Vec<usize>>,
    right: Vec<Vec<usize>>,
    /// Items of each layer, from top to bottom.
    layers: Vec<Vec<usize>>,
    y: Vec<i32>,
    /// Items between the ends of each edge, from source to target.
    chains: Vec<Vec<usize>>,
}

impl Net {
    fn new<N, E>(graph: &DiGraph<N, E>) -> Self {
        let plain =
            graph.filter_map(|_, _| Some(()), |e, _| graph.edge_endpoints(e).filter(|(a, b)| a != b).map(|_| e));
        let against: Vec<_> = greedy_feedback_arc_set(&plain).map(|e| *e.weight()).collect();
        let forward = |e: &petgraph::graph::EdgeIndex, a: NodeIndex, b: NodeIndex| {
            if against.contains(e) { (b, a) } else { (a, b) }
        };
        let mut acyclic: DiGraph<(), ()> = plain.map(|_, ()| (), |_, _| ());
        acyclic.clear_edges();
        for e in plain.edge_references() {
            let (a, b) = forward(e.weight(), e.source(), e.target());
            acyclic.update_edge(a, b, ());
        }
        let layer = layers_of(&acyclic);
        let mut net = Self {
            left: vec![Vec::new(); layer.len()],
            right: vec![Vec::new(); layer.len()],
            layers: Vec::new(),
            y: Vec::new(),
            chains: vec![Vec::new(); graph.edge_count()],
            layer,
        };
        for e in plain.edge_references() {
            let (a, b) = forward(e.weight(), e.source(), e.target());
            let turned = a != e.source();
            let mut chain = net.connect(a.index(), b.index());
            if turned {
                chain.reverse();
            }
            if let Some(slot) = net.chains.get_mut(e.weight().index()) {
                *slot = chain;
            }
        }
        let depth = net.layer.iter().max().map_or(0, |most| most + 1);
        net.layers = vec![Vec::new(); depth];
        for (item, layer) in net.layer.iter().enumerate() {
            net.layers[*layer].push(item);
        }
        net
    }

    /// Joins two nodes over the layers between them; returns the steps.
    fn connect(&mut self, from: usize, to: usize) -> Vec<usize> {
        let mut steps = Vec::new();
        let mut before = from;
        for layer in self.layer[from] + 1..self.layer[to] {
            let step = self.layer.len();
            self.layer.push(layer);
            self.left.push(Vec::new());
            self.right.push(Vec::new());
            self.join(before, step);
            steps.push(step);
            before = step;
        }
        self.join(before, to);
        steps
    }

    fn join(&mut self, a: usize, b: usize) {
        self.right[a].push(b);
        self.left[b].push(a);
    }

    /// Finds an order within the layers with few crossings.
    fn order(&mut self) {
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            let depth = self.layers.len();
            for step in 1..depth {
                let (layer, neighbours) =
                    if sweep % 2 == 0 { (step, &self.left) } else { (depth - 1 - step, &self.right) };
                let place = places(&self.layers, self.layer.len());
                let mut keyed: Vec<(u64, usize)> = self.layers[layer]
                    .iter()
                    .map(|item| {
                        let around = &neighbours[*item];
                        let sum: u64 = around.iter().map(|n| place[*n] as u64 * 1024).sum();
                        (sum.checked_div(around.len() as u64).unwrap_or(place[*item] as u64 * 1024), *item)
                    })
                    .collect();
                keyed.sort_by_key(|(key, item)| (*key, place[*item]));
                self.layers[layer] = keyed.into_iter().map(|(_, item)| item).collect();
            }
            let now = self.crossings();
            if now < best.0 {
                best = (now, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    fn crossings(&self) -> usize {
        let place = places(&self.layers, self.layer.len());
        let mut sum = 0;
        for layer in &self.layers {
            let ends: Vec<usize> = layer
                .iter()
                .flat_map(|item| {
                    let mut ends: Vec<usize> = self.right[*item].iter().map(|n| place[*n]).collect();
                    ends.sort_unstable();
                    ends
                })
                .collect();
            sum += (0..ends.len()).map(|i| ends[i + 1..].iter().filter(|end| **end < ends[i]).count()).sum::<usize>();
        }
        sum
    }

    /// Pulls every item towards its neighbours while it keeps its distance within the layer.
    fn straighten(&mut self, cell: Cell) {
        let (nodes, pitch) = (self.chains_from(), cell.height + cell.gap_y);
        let room = |item: usize| if item < nodes { pitch } else { cell.gap_y.max(16) };
        self.y = vec![0; self.layer.len()];
        for layer in &self.layers {
            let mut y = 0;
            for item in layer {
                self.y[*item] = y;
                y += room(*item);
            }
        }
        for sweep in 0..SWEEPS * 2 {
            let order: Vec<usize> =
                if sweep % 2 == 0 { (0..self.layers.len()).collect() } else { (0..self.layers.len()).rev().collect() };
            for layer in order {
                let around = |item: &usize| {
                    let both: Vec<usize> = self.left[*item].iter().chain(&self.right[*item]).copied().collect();
                    mean(&self.y, &both).unwrap_or(self.y[*item])
                };
                let wanted: Vec<i32> = self.layers[layer].iter().map(around).collect();
                self.settle(layer, wanted, &room);
            }
        }
        // A caller ends level with what it calls: chains become straight lines.
        for layer in (0..self.layers.len()).rev() {
            let wanted = |item: &usize| mean(&self.y, &self.right[*item]).unwrap_or(self.y[*item]);
            let wanted: Vec<i32> = self.layers[layer].iter().map(wanted).collect();
            self.settle(layer, wanted, &room);
        }
        self.close_up(pitch, nodes, cell);
    }

    /// Moves everything to the top, and removes bands that are empty in every layer.
    fn close_up(&mut self, pitch: i32, nodes: usize, cell: Cell) {
        let mut items: Vec<usize> = (0..self.y.len()).collect();
        items.sort_by_key(|item| (self.y[*item], *item));
        let (mut moved, mut free) = (None, i32::MIN);
        for item in items {
            let y = self.y[item];
            let shift: i32 = moved.map_or(y, |moved| moved + (y - free).max(0));
            moved = Some(shift);
            free = free.max(y + if item < nodes { pitch } else { cell.gap_y });
            self.y[item] = y - shift;
        }
    }

    /// Moves a layer's items as near to where they want to be as their distances allow.
    fn settle(&mut self, layer: usize, wanted: Vec<i32>, room: &impl Fn(usize) -> i32) {
        let items = &self.layers[layer];
        let (mut down, mut up) = (wanted.clone(), wanted);
        for i in 1..items.len() {
            down[i] = down[i].max(down[i - 1] + room(items[i - 1]));
        }
        for i in (0..items.len().saturating_sub(1)).rev() {
            up[i] = up[i].min(up[i + 1] - room(items[i]));
        }
        for (i, item) in items.iter().enumerate() {
            self.y[*item] = (down[i] + up[i]).div_euclid(2);
        }
    }

    /// Index of the first item that is a step of an edge.
    fn chains_from(&self) -> usize {
        self.chains.iter().flatten().min().copied().unwrap_or(self.layer.len())
    }

    fn placement(&self, nodes: usize, cell: Cell) -> Placement {
        let x = |item: usize| i32::try_from(self.layer[item]).unwrap_or(0) * (cell.width + cell.gap_x);
        let middle = |item: &usize| (x(*item) + cell.width / 2, self.y[*item] + cell.height / 2);
        let placed: Vec<(i32, i32)> = (0..nodes).map(|item| (x(item), self.y[item])).collect();
        Placement {
            bends: self.chains.iter().map(|chain| chain.iter().map(middle).collect()).collect(),
            size: (
                placed.iter().map(|p| p.0 + cell.width).max().unwrap_or(0),
                self.y.iter().map(|y| y + cell.height).max().unwrap_or(0),
            ),
            nodes: placed,
        }
    }
}

/// The mean height of some items.
fn mean(y: &[i32], items: &[usize]) -> Option<i32> {
    let sum: i64 = items.iter().map(|item| i64::from(y[*item])).sum();
    sum.checked_div_euclid(items.len() as i64).and_then(|mean| i32::try_from(mean).ok())
}

/// Layers by the longest path from a source; sources then move right, next to what they call.
fn layers_of(graph: &DiGraph<(), ()>) -> Vec<usize> {
    let mut layer = vec![0; graph.node_count()];
    for node in toposort(graph, None).unwrap_or_default() {
        let longest = graph.neighbors_directed(node, Direction::Incoming).map(|n| layer[n.index()] + 1).max();
        layer[node.index()] = longest.unwrap_or(0);
    }
    for node in graph.node_indices() {
        if graph.neighbors_directed(node, Direction::Incoming).next().is_none()
            && let Some(next) = graph.neighbors(node).map(|n| layer[n.index()]).min()
        {
            layer[node.index()] = next - 1;
        }
    }
    layer
}

/// The place of each item within its layer.
fn places(layers: &[Vec<usize>], items: usize) -> Vec<usize> {
    let mut place = vec![0; items];
    for layer in layers {
        for (i, item) in layer.iter().enumerate() {
            place[*item] = i;
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: Cell = Cell { width: 100, height: 40, gap_x: 60, gap_y: 20 };

    fn place(nodes: usize, edges: &[(u32, u32)]) -> Placement {
        let mut graph: DiGraph<(), ()> = DiGraph::new();
        for _ in 0..nodes {
            graph.add_node(());
        }
        graph.extend_with_edges(edges);
        Layered.place(&graph, CELL)
    }

    #[test]
    fn a_chain_runs_from_left_to_right() {
        let placed = place(3, &[(0, 1), (1, 2)]);
        assert_eq!(placed.nodes, [(0, 0), (160, 0), (320, 0)]);
        assert_eq!(placed.size, (420, 40));
    }

    #[test]
    fn cycles_and_loops_end() {
        let placed = place(4, &[(0, 1), (1, 2), (2, 0), (3, 3), (2, 1)]);
        assert_eq!(placed.nodes.len(), 4);
        assert_eq!(placed.bends.len(), 5);
    }

    #[test]
    fn nodes_never_overlap_and_reruns_agree() {
        let edges: Vec<(u32, u32)> = (0..200u32).map(|i| (i * 7 % 40, i * 13 % 40)).collect();
        let placed = place(40, &edges);
        assert_eq!(placed, place(40, &edges));
        for (i, a) in placed.nodes.iter().enumerate() {
            for b in &placed.nodes[i + 1..] {
                assert!(a.0 != b.0 || (a.1 - b.1).abs() >= CELL.height, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn an_empty_graph_has_no_size() {
        assert_eq!(place(0, &[]).size, (0, 0));
    }
}
