import asyncio
import websockets
import json

async def run_function():
    uri = "ws://localhost:8765/function"
    async with websockets.connect(uri) as websocket:
        request_payload = {
            "function_id": "weather_lookup:v1.0.0-stable",
            "input_data": { "city": "Delhi" }
        }

        await websocket.send(json.dumps(request_payload))

        while True:
            response = await websocket.recv()
            response_data = json.loads(response)
            print("Response:", response_data)

            if "output" in response_data or "error" in response_data:
                break

asyncio.run(run_function())
