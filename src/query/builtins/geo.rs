//! Geospatial functions.
//!
//! In: GeoJSON records or WKT text. Out: GeoJSON records, metres, 1 or 0. Invariant: distances are geodesic on WGS 84,
//! all other answers are planar with longitude as x and latitude as y (compatibility level 1.2 computes on projected
//! coordinates). Not here: reading shapes (`shape`), the planar geometry itself ([`planar`]).

mod planar;
mod shape;

use geographiclib_rs::{Geodesic, InverseGeodesic};

use super::args::Args;
use super::error::{Out, RowError};
use crate::value::{Record, SmolStr, Type, Value};
use shape::{Geometry, Point};

/// `CreatePoint(latitude, longitude)`; GeoJSON has them the other way round.
pub fn create_point(values: &[Value]) -> Out {
    let Some(args) = Args::strict("CreatePoint", values) else { return Ok(Value::Null) };
    let (latitude, longitude) = (args.float(0)?, args.float(1)?);
    Ok(geo_json("Point", position(Point { x: longitude, y: latitude })))
}

pub fn create_line_string(values: &[Value]) -> Out {
    let Some(args) = Args::strict("CreateLineString", values) else { return Ok(Value::Null) };
    let points = points(args)?;
    Ok(geo_json("LineString", Value::array(points.into_iter().map(position).collect())))
}

/// One ring, whose last point repeats the first.
pub fn create_polygon(values: &[Value]) -> Out {
    let Some(args) = Args::strict("CreatePolygon", values) else { return Ok(Value::Null) };
    let points = points(args)?;
    if points.first() != points.last() || points.len() < 4 {
        return Err(args.error("argument", "a polygon needs three points or more, and the first again at the end"));
    }
    let ring = Value::array(points.into_iter().map(position).collect());
    Ok(geo_json("Polygon", Value::array(vec![ring])))
}

/// Metres between two points; 0 when one of the shapes is no point, as the page says of polygons.
pub fn st_distance(values: &[Value]) -> Out {
    let Some(args) = Args::strict("ST_DISTANCE", values) else { return Ok(Value::Null) };
    let (a, b) = (shape(args, 0)?, shape(args, 1)?);
    let (Some(a), Some(b)) = (a.as_point(), b.as_point()) else { return Ok(Value::Float(0.0)) };
    let on_globe = |p: Point| p.y.abs() <= 90.0;
    if !on_globe(a) || !on_globe(b) {
        return Err(args.error(
            "argument",
            "a latitude lies between -90 and 90; CreatePoint takes the latitude first, GeoJSON and WKT the longitude",
        ));
    }
    let metres: f64 = Geodesic::wgs84().inverse(a.y, a.x, b.y, b.x);
    args.finite(metres)
}

/// 1 when the two share a point.
pub fn st_intersects(values: &[Value]) -> Out {
    compare("ST_INTERSECTS", values, planar::intersects)
}

/// 1 when two polygons share an area and neither contains the other.
pub fn st_overlaps(values: &[Value]) -> Out {
    compare("ST_OVERLAPS", values, planar::overlaps)
}

/// 1 when the first lies in the second; a point on the boundary does not.
pub fn st_within(values: &[Value]) -> Out {
    compare("ST_WITHIN", values, planar::within)
}

fn compare(name: &'static str, values: &[Value], test: fn(&Geometry, &Geometry) -> bool) -> Out {
    let Some(args) = Args::strict(name, values) else { return Ok(Value::Null) };
    let (a, b) = (shape(args, 0)?, shape(args, 1)?);
    let work = a.vertices().saturating_mul(b.vertices());
    if work > planar::PAIRS_MAX {
        return Err(args.error(
            "too_complex",
            format!("shapes of {} and {} points are too large to compare", a.vertices(), b.vertices()),
        ));
    }
    Ok(Value::BigInt(i64::from(test(&a, &b))))
}

fn shape(args: Args<'_>, i: usize) -> Result<Geometry, RowError> {
    let read = match args.get(i) {
        Value::Record(record) => Geometry::from_geo_json(record),
        Value::Text(text) => Geometry::from_wkt(text),
        _ => return Err(args.invalid(i, &[Type::Record, Type::Text])),
    };
    read.ok_or_else(|| {
        args.error(
            "argument",
            format!("argument {} is no shape that can be read; it takes GeoJSON records and WKT text", i + 1),
        )
    })
}

/// All arguments as points.
fn points(args: Args<'_>) -> Result<Vec<Point>, RowError> {
    (0..args.len())
        .map(|i| {
            shape(args, i)?.as_point().ok_or_else(|| args.error("argument", format!("argument {} is no point", i + 1)))
        })
        .collect()
}

fn geo_json(kind: &'static str, coordinates: Value) -> Value {
    Value::record(Record::from_unique(vec![
        (SmolStr::new_static("type"), Value::Text(SmolStr::new_static(kind))),
        (SmolStr::new_static("coordinates"), coordinates),
    ]))
}

fn position(p: Point) -> Value {
    Value::array(vec![Value::Float(p.x), Value::Float(p.y)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(latitude: f64, longitude: f64) -> Value {
        create_point(&[Value::Float(latitude), Value::Float(longitude)]).unwrap()
    }

    fn ask(f: fn(&[Value]) -> Out, a: &str, b: &str) -> i64 {
        match f(&[Value::text(a), Value::text(b)]) {
            Ok(Value::BigInt(n)) => n,
            other => panic!("{a} {b}: {other:?}"),
        }
    }

    const SQUARE: &str = "POLYGON((0 0, 4 0, 4 4, 0 4, 0 0))";
    const RING: &str = "POLYGON((0 0, 9 0, 9 9, 0 9, 0 0), (3 3, 6 3, 6 6, 3 6, 3 3))";
    const CUP: &str = "POLYGON((0 0, 9 0, 9 9, 6 9, 6 3, 3 3, 3 9, 0 9, 0 0))";

    #[test]
    fn the_sample_of_the_distance_page() {
        let Ok(Value::Float(metres)) = st_distance(&[point(-5.0, -5.0), point(0.0, 0.0)]) else { panic!() };
        assert!((metres - 784_028.740_775).abs() < 1e-3, "{metres}");
        assert_eq!(st_distance(&[point(1.0, 1.0), Value::text(SQUARE)]), Ok(Value::Float(0.0)));
        assert_eq!(st_distance(&[point(91.0, 0.0), point(0.0, 0.0)]).unwrap_err().reason, "argument");
        assert_eq!(st_distance(&[Value::Null, point(0.0, 0.0)]), Ok(Value::Null));
    }

    #[test]
    fn within() {
        for (a, b, expected) in [
            ("POINT(1 1)", SQUARE, 1),
            ("POINT(4 1)", SQUARE, 0),
            ("POINT(5 1)", SQUARE, 0),
            ("POINT(4 4)", RING, 0),
            ("POINT(1 4)", RING, 1),
            ("POINT(4.5 5)", CUP, 0),
            (SQUARE, SQUARE, 1),
            (SQUARE, "POLYGON((-1 -1, 5 -1, 5 5, -1 5, -1 -1))", 1),
            ("POLYGON((2 2, 7 2, 7 7, 2 7, 2 2))", RING, 0),
            ("POLYGON((1 1, 2 1, 2 8, 1 8, 1 1))", CUP, 1),
            ("POLYGON((1 7, 8 7, 8 8, 1 8, 1 7))", CUP, 0),
            ("LINESTRING(1 1, 3 3)", SQUARE, 1),
            ("LINESTRING(1 1, 5 5)", SQUARE, 0),
            ("MULTIPOINT((1 1), (2 2))", SQUARE, 1),
            ("POINT(1 1)", "MULTIPOLYGON(((9 9, 8 9, 8 8, 9 9)), ((0 0, 4 0, 4 4, 0 0)))", 0),
            ("POINT(2 1)", "MULTIPOLYGON(((9 9, 8 9, 8 8, 9 9)), ((0 0, 4 0, 4 4, 0 0)))", 1),
            ("POINT(1 1)", "LINESTRING(0 0, 2 2)", 0),
            ("POINT EMPTY", SQUARE, 0),
        ] {
            assert_eq!(ask(st_within, a, b), expected, "{a} in {b}");
        }
    }

    #[test]
    fn intersects_and_overlaps() {
        for (a, b, intersects, overlaps) in [
            ("LINESTRING(0 0, 2 2)", "LINESTRING(0 2, 2 0)", 1, 0),
            ("LINESTRING(0 0, 1 1)", "LINESTRING(1 1, 2 0)", 1, 0),
            ("LINESTRING(0 0, 1 1)", "LINESTRING(2 2, 3 3)", 0, 0),
            ("POINT(4 1)", SQUARE, 1, 0),
            ("POINT(4.5 4.5)", RING, 0, 0),
            (SQUARE, "POLYGON((2 2, 6 2, 6 6, 2 6, 2 2))", 1, 1),
            (SQUARE, "POLYGON((1 1, 2 1, 2 2, 1 2, 1 1))", 1, 0),
            (SQUARE, "POLYGON((4 0, 8 0, 8 4, 4 4, 4 0))", 1, 0),
            (SQUARE, "POLYGON((5 0, 8 0, 8 4, 5 4, 5 0))", 0, 0),
            (SQUARE, SQUARE, 1, 0),
            // the second lies across the first without a vertex of either inside the other
            ("POLYGON((0 1, 9 1, 9 2, 0 2, 0 1))", "POLYGON((4 0, 5 0, 5 9, 4 9, 4 0))", 1, 1),
            (RING, "POLYGON((4 4, 5 4, 5 5, 4 5, 4 4))", 0, 0),
        ] {
            for (a, b) in [(a, b), (b, a)] {
                assert_eq!(ask(st_intersects, a, b), intersects, "{a} meets {b}");
                assert_eq!(ask(st_overlaps, a, b), overlaps, "{a} overlaps {b}");
            }
        }
    }

    #[test]
    fn shapes_are_made_in_geo_json_order() {
        let line = create_line_string(&[point(0.5, 1.25), point(1.5, 2.5)]).unwrap();
        assert_eq!(line.to_json(), r#"{"type":"LineString","coordinates":[[1.25,0.5],[2.5,1.5]]}"#);
        let (a, b, c) = (point(0.0, 0.0), point(0.0, 2.0), point(2.0, 1.0));
        assert!(create_polygon(&[a.clone(), b.clone(), c.clone(), a.clone()]).is_ok());
        assert_eq!(create_polygon(&[a.clone(), b, c]).unwrap_err().reason, "argument");
        assert_eq!(create_line_string(&[a, line]).unwrap_err().reason, "argument");
    }

    #[test]
    fn unreadable_shapes_name_the_argument() {
        let error = st_within(&[Value::text("POINT(1)"), Value::text(SQUARE)]).unwrap_err();
        assert_eq!(
            error.message,
            "ST_WITHIN: argument 1 is no shape that can be read; it takes GeoJSON records and WKT text"
        );
        assert_eq!(st_within(&[Value::BigInt(1), Value::text(SQUARE)]).unwrap_err().reason, "argument");
    }

    #[test]
    fn huge_shapes_are_refused() {
        let points: Vec<String> = (0..20_000).map(|i| format!("{i} 0")).collect();
        let line = format!("LINESTRING({})", points.join(","));
        assert_eq!(st_intersects(&[Value::text(&line), Value::text(&line)]).unwrap_err().reason, "too_complex");
    }
}
