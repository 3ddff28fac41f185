//! Planar geometry on shapes.
//!
//! In: two shapes. Out: whether they meet, overlap, or one lies in the other. Invariant: the work is the product of
//! their sizes, which the caller keeps below [`PAIRS_MAX`]. Not here: reading shapes, distances on the globe.
//!
//! Method: cut every edge of one shape where edges of the other cross it; each piece then lies wholly inside, outside
//! or on the boundary, and its middle tells which.

use super::shape::{Geometry, Point, Polygon};

/// Pairs of edges that one call looks at: 10 ms, or seconds for shapes that cross each other at every edge.
pub const PAIRS_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum LineSide {
    Inside,
    Boundary,
    Outside,
}

type PolygonEdge = (Point, Point);

/// Whether the shapes share a point.
pub fn intersects(a: &Geometry, b: &Geometry) -> bool {
    let touches = |p: &Point, shape: &Geometry| {
        side_of(*p, &shape.polygons) != LineSide::Outside
            || edges(shape).any(|e| on_edge(*p, e))
            || shape.points.iter().any(|q| q == p)
    };
    a.points.iter().any(|p| touches(p, b))
        || b.points.iter().any(|p| touches(p, a))
        || edges(a).any(|e| edges(b).any(|f| meet(e, f)))
        // no edges cross, so one of them lies in the other wholly or not at all
        || firsts(a).any(|p| side_of(p, &b.polygons) != LineSide::Outside)
        || firsts(b).any(|p| side_of(p, &a.polygons) != LineSide::Outside)
}

/// Whether two areas share an area and neither contains the other.
pub fn overlaps(a: &Geometry, b: &Geometry) -> bool {
    share_area(a, b) && !within(a, b) && !within(b, a)
}

/// Whether the first lies in the second, an area: no part of it outside, and not only on the boundary.
pub fn within(a: &Geometry, b: &Geometry) -> bool {
    if a.vertices() == 0 || b.polygons.is_empty() {
        return false;
    }
    let mut inside = !a.polygons.is_empty();
    for p in &a.points {
        match side_of(*p, &b.polygons) {
            LineSide::Outside => return false,
            side => inside |= side == LineSide::Inside,
        }
    }
    for edge in edges(a) {
        for p in pieces(edge, b) {
            match side_of(p, &b.polygons) {
                LineSide::Outside => return false,
                side => inside |= side == LineSide::Inside,
            }
        }
    }
    // the boundary is inside; a hole of the second may still lie in the first
    inside && !b.polygons.iter().any(|polygon| polygon.iter().skip(1).any(|hole| covers_hole(a, hole)))
}

fn covers_hole(a: &Geometry, hole: &[Point]) -> bool {
    !a.polygons.is_empty()
        && ring_edges(hole).flat_map(|e| pieces(e, a)).any(|p| side_of(p, &a.polygons) == LineSide::Inside)
}

fn share_area(a: &Geometry, b: &Geometry) -> bool {
    if a.polygons.is_empty() || b.polygons.is_empty() {
        return false;
    }
    let enters = |a: &Geometry, b: &Geometry| {
        a.polygons
            .iter()
            .flatten()
            .flat_map(|ring| ring_edges(ring))
            .flat_map(|e| pieces(e, b))
            .any(|p| side_of(p, &b.polygons) == LineSide::Inside)
    };
    // when no piece of a boundary is inside the other, areas are shared only by equal shapes, which contain each other
    enters(a, b) || enters(b, a)
}

/// The first point of every line and ring.
fn firsts(shape: &Geometry) -> impl Iterator<Item = Point> {
    shape.lines.iter().chain(shape.polygons.iter().flatten()).filter_map(|line| line.first().copied())
}

fn edges(shape: &Geometry) -> impl Iterator<Item = PolygonEdge> {
    shape.lines.iter().chain(shape.polygons.iter().flatten()).flat_map(|line| ring_edges(line))
}

fn ring_edges(line: &[Point]) -> impl Iterator<Item = PolygonEdge> {
    line.iter().copied().zip(line.iter().skip(1).copied())
}

/// Where a point lies among polygons taken together.
fn side_of(p: Point, polygons: &[Polygon]) -> LineSide {
    let mut best = LineSide::Outside;
    for polygon in polygons {
        match side_of_polygon(p, polygon) {
            LineSide::Inside => return LineSide::Inside,
            LineSide::Boundary => best = LineSide::Boundary,
            LineSide::Outside => {}
        }
    }
    best
}

/// Counts crossings of a ray to the right; holes count like the outer ring, so inside them the number is even.
fn side_of_polygon(p: Point, polygon: &Polygon) -> LineSide {
    let mut inside = false;
    for (a, b) in polygon.iter().flat_map(|ring| ring_edges(ring)) {
        if on_edge(p, (a, b)) {
            return LineSide::Boundary;
        }
        if (a.y > p.y) != (b.y > p.y) && p.x < a.x + (p.y - a.y) / (b.y - a.y) * (b.x - a.x) {
            inside = !inside;
        }
    }
    if inside { LineSide::Inside } else { LineSide::Outside }
}

/// Twice the area of the triangle: positive when `c` lies to the left of `a` to `b`.
fn turn(a: Point, b: Point, c: Point) -> f64 {
    (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x)
}

fn on_edge(p: Point, (a, b): PolygonEdge) -> bool {
    let in_box = p.x >= a.x.min(b.x) && p.x <= a.x.max(b.x) && p.y >= a.y.min(b.y) && p.y <= a.y.max(b.y);
    // cutting an edge rounds, so a cut point lies on it only to within the precision of its coordinates
    let scale = (b.x - a.x).abs().max((b.y - a.y).abs()) * (p.x.abs().max(p.y.abs()) + 1.0);
    in_box && turn(a, b, p).abs() <= scale * 4.0 * f64::EPSILON
}

/// Whether two edges share a point.
fn meet(e: PolygonEdge, f: PolygonEdge) -> bool {
    let apart = |f1: f64, f2: f64| (f1 > 0.0 && f2 > 0.0) || (f1 < 0.0 && f2 < 0.0);
    if on_edge(e.0, f) || on_edge(e.1, f) || on_edge(f.0, e) || on_edge(f.1, e) {
        return true;
    }
    let (a, b) = (turn(e.0, e.1, f.0), turn(e.0, e.1, f.1));
    let (c, d) = (turn(f.0, f.1, e.0), turn(f.0, f.1, e.1));
    a != 0.0 && b != 0.0 && c != 0.0 && d != 0.0 && !apart(a, b) && !apart(c, d)
}

/// The middles of the pieces of an edge, cut where edges of the shape touch or cross it.
fn pieces(edge: PolygonEdge, shape: &Geometry) -> Vec<Point> {
    let mut cuts = vec![0.0, 1.0];
    for other in edges(shape) {
        cuts.extend(cut_at(edge, other));
        cuts.extend([other.0, other.1].into_iter().filter(|p| on_edge(*p, edge)).map(|p| along(edge, p)));
    }
    cuts.retain(|t| (0.0..=1.0).contains(t));
    cuts.sort_by(f64::total_cmp);
    cuts.iter()
        .zip(cuts.iter().skip(1))
        .filter(|(s, t)| *t - *s > 1e-12)
        .map(|(s, t)| at(edge, (s + t) / 2.0))
        .collect()
}

/// How far along an edge a line crosses it, 0 to 1; `None` for parallel lines and crossings elsewhere.
fn cut_at(e: PolygonEdge, f: PolygonEdge) -> Option<f64> {
    let (dx, dy) = (e.1.x - e.0.x, e.1.y - e.0.y);
    let (fx, fy) = (f.1.x - f.0.x, f.1.y - f.0.y);
    let cross = dx * fy - dy * fx;
    if cross == 0.0 {
        return None;
    }
    let (ox, oy) = (f.0.x - e.0.x, f.0.y - e.0.y);
    let (t, u) = ((ox * fy - oy * fx) / cross, (ox * dy - oy * dx) / cross);
    ((0.0..=1.0).contains(&t) && (0.0..=1.0).contains(&u)).then_some(t)
}

fn along(edge: PolygonEdge, p: Point) -> f64 {
    let (dx, dy) = (edge.1.x - edge.0.x, edge.1.y - edge.0.y);
    if dx.abs() > dy.abs() { (p.x - edge.0.x) / dx } else { (p.y - edge.0.y) / dy }
}

fn at(edge: PolygonEdge, t: f64) -> Point {
    Point { x: edge.0.x + (edge.1.x - edge.0.x) * t, y: edge.0.y + (edge.1.y - edge.0.y) * t }
}
