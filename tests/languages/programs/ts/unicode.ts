class Text {
  constructor(private readonly text: string) {}

  show(): void {
    console.log(this.text);
    console.log([...this.text].length);
  }
}

new Text("Grüße, 世界 🌍").show();
