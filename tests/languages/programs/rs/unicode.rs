fn main() {
    let text = "Grüße, 世界 🌍";
    println!("{text}\n{}", text.chars().count());
}
