use std::fs;

fn main() -> std::io::Result<()> {
    let text = fs::read_to_string("données.txt")?;
    fs::create_dir("out")?;
    fs::write("out/copy.txt", text + "more\n")?;
    println!("written");
    Ok(())
}
