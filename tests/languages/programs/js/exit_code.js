console.log("before the end");
process.exit(7);
