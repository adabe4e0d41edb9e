fn main() {
    println!("before the end");
    std::process::exit(7);
}
