console.log("not reached");
const broken: = 1;
