interface Thing {
  name: string;
}

function fail(thing: Thing): never {
  throw new Error(`went wrong ${thing.name}`);
}

fail({ name: "on purpose" });
