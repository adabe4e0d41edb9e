function fail() {
  throw new Error("went wrong on purpose");
}

fail();
