const args: string[] = process.argv.slice(2);
args.forEach((argument: string): void => console.log(`[${argument}]`));
