fn fail() -> Result<(), String> {
    Err("went wrong on purpose".to_string())
}

fn main() {
    fail().unwrap();
}
