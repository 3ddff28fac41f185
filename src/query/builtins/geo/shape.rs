//! Shapes read from GeoJSON records and from Well Known Text.
//!
//! In: a record or text. Out: [`Geometry`], points, lines and polygons in one bag. Invariant: coordinates are finite,
//! lines have two points or more, rings four or more and are closed. Not here: what shapes have to do with each other
//! (`planar`).

use crate::value::{Record, Value};

/// A place: longitude and latitude.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: f64,
}

/// The outer ring, then the holes; each closed.
pub type Polygon = Vec<Vec<Point>>;

/// Everything a geometry consists of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Geometry {
    pub points: Vec<Point>,
    pub lines: Vec<Vec<Point>>,
    pub polygons: Vec<Polygon>,
}

/// Nesting of coordinates and collections; a MultiPolygon needs four levels.
const DEPTH_MAX: usize = 8;

/// Nested coordinates, before the kind of the shape says what they mean.
#[derive(Debug)]
enum Coordinates {
    Place(Point),
    List(Vec<Coordinates>),
}

impl Geometry {
    /// Reads a GeoJSON geometry.
    pub fn from_geo_json(record: &Record) -> Option<Geometry> {
        let mut shape = Geometry::default();
        add_geo_json(&mut shape, record, 0)?;
        Some(shape)
    }

    /// Reads Well Known Text of any type; a third and fourth coordinate are passed over.
    pub fn from_wkt(text: &str) -> Option<Geometry> {
        let mut reader = Wkt { rest: text.trim() };
        // `SRID=4326;POINT(…)`
        if reader.rest.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("SRID=")) {
            reader.rest = reader.rest.split_once(';')?.1;
        }
        let mut shape = Geometry::default();
        reader.geometry(&mut shape, 0)?;
        reader.rest.trim().is_empty().then_some(shape)
    }

    /// The point that this shape is, when it is nothing else.
    pub fn as_point(&self) -> Option<Point> {
        match (self.points.as_slice(), self.lines.is_empty(), self.polygons.is_empty()) {
            ([point], true, true) => Some(*point),
            _ => None,
        }
    }

    /// Number of points of all parts.
    pub fn vertices(&self) -> usize {
        let lines: usize = self.lines.iter().map(Vec::len).sum();
        let rings: usize = self.polygons.iter().flatten().map(Vec::len).sum();
        self.points.len() + lines + rings
    }

    /// Adds coordinates as the kind of geometry they belong to.
    fn add(&mut self, kind: &str, coordinates: &Coordinates) -> Option<()> {
        match (kind.to_ascii_lowercase().as_str(), coordinates) {
            ("point", Coordinates::Place(p)) => self.points.push(*p),
            // `POINT(1 2)` and a bare pair inside MULTIPOINT
            ("point", Coordinates::List(list)) => match list.as_slice() {
                [] => {}
                [Coordinates::Place(p)] => self.points.push(*p),
                _ => return None,
            },
            ("linestring", c) => {
                let line = places(c)?;
                match line.len() {
                    0 => {}
                    1 => return None,
                    _ => self.lines.push(line),
                }
            }
            ("polygon", Coordinates::List(rings)) => {
                let polygon: Polygon = rings.iter().map(ring).collect::<Option<_>>()?;
                if !polygon.is_empty() {
                    self.polygons.push(polygon);
                }
            }
            ("multipoint", Coordinates::List(items)) => items.iter().try_for_each(|i| self.add("point", i))?,
            ("multilinestring", Coordinates::List(items)) => {
                items.iter().try_for_each(|i| self.add("linestring", i))?
            }
            ("multipolygon", Coordinates::List(items)) => items.iter().try_for_each(|i| self.add("polygon", i))?,
            _ => return None,
        }
        Some(())
    }
}

fn places(c: &Coordinates) -> Option<Vec<Point>> {
    let Coordinates::List(items) = c else { return None };
    items
        .iter()
        .map(|c| match c {
            Coordinates::Place(p) => Some(*p),
            Coordinates::List(_) => None,
        })
        .collect()
}

fn ring(c: &Coordinates) -> Option<Vec<Point>> {
    places(c).filter(|ring| ring.len() >= 4 && ring.first() == ring.last())
}

fn point(x: f64, y: f64) -> Option<Point> {
    (x.is_finite() && y.is_finite()).then_some(Point { x, y })
}

fn add_geo_json(shape: &mut Geometry, record: &Record, depth: usize) -> Option<()> {
    let Value::Text(kind) = record.find("type")? else { return None };
    if !kind.eq_ignore_ascii_case("GeometryCollection") {
        return shape.add(kind, &coordinates(record.find("coordinates")?, 0)?);
    }
    let Value::Array(members) = record.find("geometries")? else { return None };
    if depth > DEPTH_MAX {
        return None;
    }
    members.iter().try_for_each(|member| match member {
        Value::Record(member) => add_geo_json(shape, member, depth + 1),
        _ => None,
    })
}

fn coordinates(value: &Value, depth: usize) -> Option<Coordinates> {
    let Value::Array(items) = value else { return None };
    let number = |v: &Value| match v {
        Value::BigInt(n) => Some(*n as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    };
    match items.as_slice() {
        // a height may follow
        [x, y, ..] if number(x).is_some() => Some(Coordinates::Place(point(number(x)?, number(y)?)?)),
        _ if depth > DEPTH_MAX => None,
        items => items.iter().map(|v| coordinates(v, depth + 1)).collect::<Option<_>>().map(Coordinates::List),
    }
}

struct Wkt<'a> {
    rest: &'a str,
}

impl<'a> Wkt<'a> {
    fn eat(&mut self, c: char) -> bool {
        match self.rest.trim_start().strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        let text = self.rest.trim_start();
        let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        word
    }

    fn geometry(&mut self, shape: &mut Geometry, depth: usize) -> Option<()> {
        let kind = self.word();
        let before = self.rest;
        let mut qualifier = self.word();
        if ["Z", "M", "ZM"].iter().any(|q| qualifier.eq_ignore_ascii_case(q)) {
            qualifier = self.word();
        }
        let empty = qualifier.eq_ignore_ascii_case("EMPTY");
        if !empty && !qualifier.is_empty() {
            self.rest = before;
            return None;
        }
        if !kind.eq_ignore_ascii_case("GEOMETRYCOLLECTION") {
            let coordinates = if empty { Coordinates::List(Vec::new()) } else { self.list(0)? };
            return shape.add(kind, &coordinates);
        }
        if empty {
            return Some(());
        }
        if depth > DEPTH_MAX || !self.eat('(') {
            return None;
        }
        loop {
            self.geometry(shape, depth + 1)?;
            if !self.eat(',') {
                return self.eat(')').then_some(());
            }
        }
    }

    /// `( item, item … )`, an item being a list or a place.
    fn list(&mut self, depth: usize) -> Option<Coordinates> {
        if depth > DEPTH_MAX || !self.eat('(') {
            return None;
        }
        let mut items = Vec::new();
        loop {
            let nested = self.rest.trim_start().starts_with('(');
            items.push(if nested { self.list(depth + 1)? } else { self.place()? });
            if !self.eat(',') {
                return self.eat(')').then_some(Coordinates::List(items));
            }
        }
    }

    fn place(&mut self) -> Option<Coordinates> {
        let (x, y) = (self.number()?, self.number()?);
        // height and measure
        while !self.rest.trim_start().starts_with([',', ')']) {
            self.number()?;
        }
        point(x, y).map(Coordinates::Place)
    }

    fn number(&mut self) -> Option<f64> {
        let text = self.rest.trim_start();
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E')))
            .unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        self.rest = rest;
        number.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::builtins::array::json_parse;
    use proptest::prelude::*;

    fn geo_json(text: &str) -> Option<Geometry> {
        match json_parse(&[Value::text(text)]) {
            Ok(Value::Record(record)) => Geometry::from_geo_json(&record),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn both_notations_give_the_same_shapes() {
        for (wkt, json) in [
            ("POINT(1.5 -2)", r#"{"type":"Point","coordinates":[1.5,-2]}"#),
            ("point z (1 2 3)", r#"{"type":"Point","coordinates":[1,2,3]}"#),
            ("LINESTRING (1 2, 3 4)", r#"{"type":"LineString","coordinates":[[1,2],[3,4]]}"#),
            ("SRID=4326;POLYGON((0 0,1 0,1 1,0 0))", r#"{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}"#),
            ("MULTIPOINT(1 2, 3 4)", r#"{"type":"MultiPoint","coordinates":[[1,2],[3,4]]}"#),
            (
                "MULTILINESTRING((1 2, 3 4),(5 6,7 8))",
                r#"{"type":"MultiLineString","coordinates":[[[1,2],[3,4]],[[5,6],[7,8]]]}"#,
            ),
            (
                "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))",
                r#"{"type":"MultiPolygon","coordinates":[[[[0,0],[1,0],[1,1],[0,0]]]]}"#,
            ),
            (
                "GEOMETRYCOLLECTION(POINT(1 2), LINESTRING(1 2, 3 4))",
                "{\"type\":\"GeometryCollection\",\"geometries\":[{\"type\":\"Point\",\"coordinates\":[1,2]},\
                {\"type\":\"LineString\",\"coordinates\":[[1,2],[3,4]]}]}",
            ),
        ] {
            let shape = Geometry::from_wkt(wkt);
            assert!(shape.is_some(), "{wkt}");
            assert_eq!(shape, geo_json(json), "{wkt}");
        }
        assert_eq!(Geometry::from_wkt("MULTIPOINT((1 2), (3 4))"), Geometry::from_wkt("MULTIPOINT(1 2, 3 4)"));
        assert_eq!(Geometry::from_wkt("POLYGON EMPTY"), Some(Geometry::default()));
    }

    #[test]
    fn malformed_shapes_are_none() {
        for wkt in [
            "",
            "POINT",
            "POINT(1)",
            "POINT(1 2",
            "POINT(1 2) x",
            "POINT(1 2, 3 4)",
            "POINT(nan 1)",
            "LINESTRING(1 2)",
            "CIRCLE(1 2)",
            "POLYGON((0 0,1 0,1 1))",
            "POLYGON((0 0,1 0,1 1,2 2))",
            "POINT((1 2))x",
        ] {
            assert_eq!(Geometry::from_wkt(wkt), None, "{wkt}");
        }
        for json in [
            "{}",
            r#"{"type":"Point"}"#,
            r#"{"type":"Point","coordinates":["1","2"]}"#,
            r#"{"type":5,"coordinates":[1,2]}"#,
        ] {
            assert_eq!(geo_json(json), None, "{json}");
        }
        assert_eq!(Geometry::from_wkt(&format!("POLYGON{}", "(".repeat(100_000))), None);
        assert_eq!(Geometry::from_wkt(&"GEOMETRYCOLLECTION(".repeat(10_000)), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r"(POINT|POLYGON|MULTIPOINT|EMPTY|Z|[0-9 ,.()e-]|ä){0,20}") {
            let _ = Geometry::from_wkt(&text);
        }
    }
}
