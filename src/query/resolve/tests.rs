use crate::query::catalog::{Catalog, FunctionDef, FunctionKind, InputDef, InputKind, Param, Shape, Signature};
use crate::query::{compile, plan::explain};

fn catalog() -> Catalog {
    let input = |name: &str, kind| InputDef { name: name.into(), kind };
    let text = Shape::Text;
    let params = ["vendorid", "weekday", "distance"].map(|name| Param { name: name.into(), shape: text.clone() }).to_vec();
    let signature = Signature {
        params,
        result: Shape::List(Box::new(Shape::Text)),
        text: "create-array: func(vendorid: string, weekday: string, distance: string) -> list<string>".into(),
    };
    let local = FunctionDef { name: "create_array".into(), kind: FunctionKind::Local { index: 0, signature } };
    let external = |name: &str| FunctionDef { name: name.into(), kind: FunctionKind::External };
    Catalog {
        inputs: vec![
            input("rides", InputKind::Stream),
            input("x", InputKind::Stream),
            input("y", InputKind::Stream),
            input("z", InputKind::Stream),
            input("sites", InputKind::Reference),
        ],
        outputs: None,
        functions: vec![local, external("score"), external("rate")],
    }
}

fn plan(query: &str) -> String {
    match compile(query, "q.asaql", &catalog()) {
        Ok(plan) => explain(&plan),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn show() {
    for q in [
        "SELECT udf.score(udf.createArray(vendorid, weekday, distance)) AS fare, deviceId INTO scored FROM rides WHERE distance > 0 AND udf.score(weekday) > 5",
        "WITH Dataframe AS (SELECT vendorid, weekday, distance FROM rides) SELECT udf.score(Dataframe) INTO output FROM rides",
        "WITH s AS (SELECT * FROM rides WHERE a > 1) SELECT b, c.d FROM s",
        "WITH s AS (SELECT *, udf.score(a) AS sc FROM rides) SELECT b, COUNT(*) AS n, AVG(sc) AS m FROM s WHERE sc > 3 GROUP BY b, TumblingWindow(second, 10) HAVING n > 2",
        "SELECT k, udf.score(AVG(v)) AS s, udf.score(udf.rate(k)) FROM x TIMESTAMP BY at GROUP BY k, HoppingWindow(minute, 3, 1) HAVING udf.score(AVG(v)) > 1 AND COUNT(*) > 3",
        "SELECT s.run, f.code FROM x s TIMESTAMP BY at JOIN y p TIMESTAMP BY at ON s.run = p.run AND DATEDIFF(second, s, p) BETWEEN 0 AND 60 JOIN z f TIMESTAMP BY at ON f.run = s.run AND DATEDIFF(second, s, f) BETWEEN 0 AND 60 AND DATEDIFF(second, f, p) BETWEEN 0 AND 60",
        "SELECT t.dev, s.site, t.EventEnqueuedUtcTime FROM x t LEFT JOIN sites s ON t.dev = s.dev AND t.a > s.lo",
        "SELECT a.id, r.ArrayValue AS v, x.n FROM rides a CROSS APPLY GetArrayElements(a.tags) AS r CROSS APPLY GetRecordProperties(r.ArrayValue) AS p JOIN x ON x.id = a.id AND DATEDIFF(second, a, x) BETWEEN 0 AND 5",
        "WITH u AS (SELECT k, v FROM x UNION SELECT k, w FROM y) SELECT v FROM u",
        "SELECT n, LAG(n) OVER (PARTITION BY k LIMIT DURATION(minute, 1) WHEN n > 2) AS prev, GetMetadataPropertyValue(x, 'Mqtt.Topic') AS t FROM x TIMESTAMP BY at OVER k WHERE ISFIRST(second, 5) = 1",
        "WITH a AS (SELECT udf.score(v) AS s, k FROM x TIMESTAMP BY at), b AS (SELECT MAX(s) AS m FROM a GROUP BY SlidingWindow(second, 4)) SELECT udf.rate(m), System.Timestamp() AS t FROM b; SELECT k FROM a",
    ] {
        println!("{q}\n{}", plan(q));
    }
}
