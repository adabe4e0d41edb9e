void main() {
    throw new Exception("went wrong on purpose");
}
