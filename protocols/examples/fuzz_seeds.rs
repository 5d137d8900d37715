//! Writes fuzz inputs made from recordings: `cargo run -p kfr-protocols --example fuzz_seeds -- FOLDER_OF_PCAPS TARGET
//! [FIRST_BYTE]`.
//! `--names` prints the protocols instead.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/drive.rs"]
mod drive;
#[path = "../tests/common/seeds.rs"]
mod seeds;

fn main() -> std::io::Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [flag] if flag == "--names" => {
            for protocol in kfr_protocols::REGISTRY {
                println!("{}", protocol.name);
            }
        }
        [folder, target, rest @ ..] if rest.len() < 2 => {
            let choice = rest.first().and_then(|number| number.to_str()?.parse().ok()).unwrap_or(0);
            let target = std::path::Path::new(target);
            std::fs::create_dir_all(target)?;
            for (number, mut seed) in seeds::seeds(folder.as_ref()).into_iter().enumerate() {
                seed[0] = choice;
                std::fs::write(target.join(format!("recording-{choice}-{number}")), seed)?;
            }
        }
        _ => {
            eprintln!("usage: fuzz_seeds FOLDER_OF_PCAPS TARGET [FIRST_BYTE] | --names");
            std::process::exit(2);
        }
    }
    Ok(())
}
