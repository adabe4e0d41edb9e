console.log("not reached");
function ( {
