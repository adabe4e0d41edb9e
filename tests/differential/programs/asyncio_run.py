import asyncio
async def main():
    p = await asyncio.create_subprocess_exec("echo", "sub", stdout=asyncio.subprocess.PIPE)
    print(await p.communicate(), await asyncio.gather(*(asyncio.sleep(0.01, i) for i in range(3))))
asyncio.run(main())
