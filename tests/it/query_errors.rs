use forebay::query::{catalog::*, compile};
#[test]
fn tmp_cases() {
    let mut bad = 0;
    for dir in ["scalar", "temporal", "stop"] {
        for f in std::fs::read_dir(format!("/work/shared/cases/{dir}")).unwrap() {
            let f = f.unwrap().path();
            let v: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&f).unwrap()).unwrap();
            let q = v["query"].as_str().unwrap();
            let mut inputs = vec![];
            for k in ["inputs", "reference", "references"] {
                if let Some(o) = v[k].as_object() {
                    for n in o.keys() {
                        inputs
                            .push(InputDef { name: n.clone(), kind: if k == "inputs" { InputKind::Stream } else { InputKind::Reference } });
                    }
                }
            }
            let catalog = Catalog { inputs, outputs: None, functions: vec![] };
            let r = compile(q, "q", &catalog);
            match (r, v["must_fail"].as_str()) {
                (Ok(_), None) => {}
                (Err(e), Some(w)) if e.to_string().to_lowercase().contains(&w.to_lowercase()) => {
                    if std::env::var("SHOW").is_ok() {
                        println!("{e}");
                    }
                }
                (Ok(_), Some(w)) => {
                    bad += 1;
                    println!("SHOULD FAIL {w}: {}", f.display());
                }
                (Err(e), _) => {
                    bad += 1;
                    println!("{}:\n{e}", f.display());
                }
            }
        }
    }
    assert_eq!(bad, 0);
}
