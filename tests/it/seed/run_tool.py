import asyncio
import websockets
import json

async def run_tool():
    uri = "ws://localhost:8765/tool"
    async with websockets.connect(uri) as websocket:
        request_payload = {
            "tool_id": "binary-increment-tool",
            "input_data": { "value": 5 }
        }

        await websocket.send(json.dumps(request_payload))

        while True:
            response = await websocket.recv()
            response_data = json.loads(response)
            print("Response:", response_data)

            if "output" in response_data or "error" in response_data:
                break

asyncio.run(run_tool())
