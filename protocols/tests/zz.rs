mod common;
use std::path::Path;
#[test]
fn dump() {
    for file in ["rocketmq/scripted", "dubbo/scripted"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/protocols").join(format!("{file}.pcap"));
        for connection in common::connections(&path) {
            let Some((found, out)) = common::decode(&connection, usize::MAX) else { println!("?");continue };
            println!("{file} {:?} {} skipped {:?} rejected {}", connection.ports, found.name, out.skipped_bytes, out.rejected);
            out.exchanges.iter().for_each(|e| println!("    {}", common::line(e)));
        }
    }
    let Some(shared) = std::env::var_os("KFR_SHARED") else { return };
    let root = Path::new(&shared).join("captures");
    for folder in std::fs::read_dir(&root).unwrap().flatten().filter(|f| f.path().is_dir()) {
        if folder.file_name() == "expected_sources" { continue }
        for file in std::fs::read_dir(folder.path()).unwrap().flatten() {
            if !file.file_name().to_string_lossy().contains("cap") { continue }
            let path = file.path();
            let Ok(connections) = std::panic::catch_unwind(|| common::connections(&path)) else { println!("unreadable {path:?}"); continue };
            for connection in connections {
                if let Some((found, out)) = common::decode(&connection, usize::MAX) && ["kafka", "zookeeper", "rocketmq", "dubbo"].contains(&found.name) {
                    println!("CLAIMED {:?} {:?} {:?} {} {}", folder.file_name(), file.file_name(), connection.ports, found.name, out.exchanges.len());
                }
            }
        }
    }
}
